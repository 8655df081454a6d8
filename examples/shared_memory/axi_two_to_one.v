// Two AXI4 managers share one memory. Plain AXI: INCR bursts pass as they are, the ID grows by a bit
// that says whose it is, so that answers may come in any order that the memory likes.
//
// Reads and writes are arbitrated apart, in turn where both ask. An address that is shown stays until
// it is taken. Write data follow their address: the next one is taken behind the last beat.

module axi_two_to_one #(
    parameter ADDRESS = 40,
    parameter DATA = 128,
    parameter ID = 2
) (
    input clk,
    input rst,

    // Managers 0 and 1, side by side: manager 1 in the upper half of every vector.
    input  [2*ID-1:0]      s_awid,
    input  [2*ADDRESS-1:0] s_awaddr,
    input  [15:0]          s_awlen,
    input  [5:0]           s_awsize,
    input  [3:0]           s_awburst,
    input  [1:0]           s_awvalid,
    output [1:0]           s_awready,
    input  [2*DATA-1:0]    s_wdata,
    input  [2*DATA/8-1:0]  s_wstrb,
    input  [1:0]           s_wlast,
    input  [1:0]           s_wvalid,
    output [1:0]           s_wready,
    output [2*ID-1:0]      s_bid,
    output [3:0]           s_bresp,
    output [1:0]           s_bvalid,
    input  [1:0]           s_bready,
    input  [2*ID-1:0]      s_arid,
    input  [2*ADDRESS-1:0] s_araddr,
    input  [15:0]          s_arlen,
    input  [5:0]           s_arsize,
    input  [3:0]           s_arburst,
    input  [1:0]           s_arvalid,
    output [1:0]           s_arready,
    output [2*ID-1:0]      s_rid,
    output [2*DATA-1:0]    s_rdata,
    output [3:0]           s_rresp,
    output [1:0]           s_rlast,
    output [1:0]           s_rvalid,
    input  [1:0]           s_rready,

    output [ID:0]          m_awid,
    output [ADDRESS-1:0]   m_awaddr,
    output [7:0]           m_awlen,
    output [2:0]           m_awsize,
    output [1:0]           m_awburst,
    output                 m_awvalid,
    input                  m_awready,
    output [DATA-1:0]      m_wdata,
    output [DATA/8-1:0]    m_wstrb,
    output                 m_wlast,
    output                 m_wvalid,
    input                  m_wready,
    input  [ID:0]          m_bid,
    input  [1:0]           m_bresp,
    input                  m_bvalid,
    output                 m_bready,
    output [ID:0]          m_arid,
    output [ADDRESS-1:0]   m_araddr,
    output [7:0]           m_arlen,
    output [2:0]           m_arsize,
    output [1:0]           m_arburst,
    output                 m_arvalid,
    input                  m_arready,
    input  [ID:0]          m_rid,
    input  [DATA-1:0]      m_rdata,
    input  [1:0]           m_rresp,
    input                  m_rlast,
    input                  m_rvalid,
    output                 m_rready
);

    // Reads. `ar_last` was served last; `ar_held` keeps who is shown until the memory takes it.
    reg ar_last, ar_held, ar_kept;
    wire ar = ar_held ? ar_kept : &s_arvalid ? ~ar_last : s_arvalid[1];
    assign m_arvalid = s_arvalid[ar];
    assign m_arid = {ar, s_arid[ar*ID +: ID]};
    assign m_araddr = s_araddr[ar*ADDRESS +: ADDRESS];
    assign m_arlen = s_arlen[ar*8 +: 8];
    assign m_arsize = s_arsize[ar*3 +: 3];
    assign m_arburst = s_arburst[ar*2 +: 2];
    assign s_arready = {ar & m_arready, ~ar & m_arready};
    always @(posedge clk)
        if (rst) {ar_last, ar_held, ar_kept} <= 3'b000;
        else if (m_arvalid) begin
            ar_held <= ~m_arready;
            ar_kept <= ar;
            if (m_arready) ar_last <= ar;
        end

    wire r = m_rid[ID];
    assign s_rid = {2{m_rid[ID-1:0]}};
    assign s_rdata = {2{m_rdata}};
    assign s_rresp = {2{m_rresp}};
    assign s_rlast = {2{m_rlast}};
    assign s_rvalid = {r & m_rvalid, ~r & m_rvalid};
    assign m_rready = s_rready[r];

    // Writes. While data of a burst are under way (`w_open`), of manager `w`, no address is shown.
    reg aw_last, aw_held, aw_kept, w_open, w;
    wire aw = aw_held ? aw_kept : &s_awvalid ? ~aw_last : s_awvalid[1];
    assign m_awvalid = s_awvalid[aw] & ~w_open;
    assign m_awid = {aw, s_awid[aw*ID +: ID]};
    assign m_awaddr = s_awaddr[aw*ADDRESS +: ADDRESS];
    assign m_awlen = s_awlen[aw*8 +: 8];
    assign m_awsize = s_awsize[aw*3 +: 3];
    assign m_awburst = s_awburst[aw*2 +: 2];
    assign s_awready = {aw & m_awready & ~w_open, ~aw & m_awready & ~w_open};
    assign m_wdata = s_wdata[w*DATA +: DATA];
    assign m_wstrb = s_wstrb[w*(DATA/8) +: DATA/8];
    assign m_wlast = s_wlast[w];
    assign m_wvalid = s_wvalid[w] & w_open;
    assign s_wready = {w & m_wready & w_open, ~w & m_wready & w_open};
    always @(posedge clk)
        if (rst) {aw_last, aw_held, aw_kept, w_open, w} <= 5'b00000;
        else begin
            if (m_awvalid) begin
                aw_held <= ~m_awready;
                aw_kept <= aw;
                if (m_awready) {aw_last, w_open, w} <= {aw, 1'b1, aw};
            end
            if (m_wvalid & m_wready & m_wlast) w_open <= 1'b0;
        end

    wire b = m_bid[ID];
    assign s_bid = {2{m_bid[ID-1:0]}};
    assign s_bresp = {2{m_bresp}};
    assign s_bvalid = {b & m_bvalid, ~b & m_bvalid};
    assign m_bready = s_bready[b];
endmodule
