// A small AXI4 manager with the ports of the raster core, for the tests of the frame harness. It
// copies `splats` beats (a multiple of four) from the splat list to the framebuffer, and reads a
// beat of the tile table beside every burst. The descriptor's version says which rule of the bus
// it breaks: 0 none, else one of the local parameters below.
module raster (
    input clk, input rst, output irq,
    input [11:0] s_axil_awaddr, input [2:0] s_axil_awprot, input s_axil_awvalid,
    output s_axil_awready, input [31:0] s_axil_wdata, input [3:0] s_axil_wstrb,
    input s_axil_wvalid, output s_axil_wready, output [1:0] s_axil_bresp,
    output reg s_axil_bvalid, input s_axil_bready, input [11:0] s_axil_araddr,
    input [2:0] s_axil_arprot, input s_axil_arvalid, output s_axil_arready,
    output reg [31:0] s_axil_rdata, output [1:0] s_axil_rresp, output reg s_axil_rvalid,
    input s_axil_rready,
    output [1:0] m_axi_awid, output [39:0] m_axi_awaddr, output [7:0] m_axi_awlen,
    output [2:0] m_axi_awsize, output [1:0] m_axi_awburst, output [3:0] m_axi_awcache,
    output [2:0] m_axi_awprot, output m_axi_awvalid, input m_axi_awready,
    output [127:0] m_axi_wdata, output [15:0] m_axi_wstrb, output m_axi_wlast,
    output m_axi_wvalid, input m_axi_wready, input [1:0] m_axi_bid, input [1:0] m_axi_bresp,
    input m_axi_bvalid, output m_axi_bready,
    output [1:0] m_axi_arid, output [39:0] m_axi_araddr, output [7:0] m_axi_arlen,
    output [2:0] m_axi_arsize, output [1:0] m_axi_arburst, output [3:0] m_axi_arcache,
    output [2:0] m_axi_arprot, output m_axi_arvalid, input m_axi_arready,
    input [1:0] m_axi_rid, input [127:0] m_axi_rdata, input [1:0] m_axi_rresp,
    input m_axi_rlast, input m_axi_rvalid, output m_axi_rready);

    localparam AW_DROPS = 1, AW_CHANGES = 2, AR_CHANGES = 3, AR_DROPS = 4, W_CHANGES = 5,
               W_DROPS = 6, LAST_EARLY = 7, CROSSES = 8, ENDS_EARLY = 9, HANGS = 10,
               NARROW = 11, READS_ON = 12, WRONG_BYTE = 13, NO_LAST = 14, ODD_ADDRESS = 15;

    reg [7:0] BUG;

    // Registers.
    reg busy, done, failed;
    reg [1:0] enable, pending;
    reg [39:0] descriptor;
    reg [3:0] error;
    reg [63:0] cycles;
    assign irq = |(enable & pending);
    assign s_axil_bresp = 0;
    assign s_axil_rresp = 0;
    wire write = s_axil_awvalid & s_axil_wvalid & ~s_axil_bvalid;
    assign s_axil_awready = write;
    assign s_axil_wready = write;
    assign s_axil_arready = ~s_axil_rvalid;
    wire start = write & s_axil_awaddr == 12'h08 & s_axil_wdata[0] & ~busy;
    reg finish;

    // Reads: 0 descriptor, then pairs of a splat burst and a table beat.
    reg [2:0] phase;  // 0 idle, 1 descriptor, 2 copy
    reg [31:0] bursts, read_sent, write_sent, written, answered;
    reg [39:0] source, table_base, target;
    reg [1:0] beat;
    reg table_turn, descriptor_sent;
    reg [7:0] reads_out;
    reg [15:0] stalled_ar, stalled_aw, stalled_w;

    reg [127:0] fifo [0:63];
    reg [6:0] head, tail, room;  // room: words not promised to a read
    wire [6:0] level = tail - head;

    assign m_axi_arvalid = (phase == 1 & ~descriptor_sent)
        | (phase == 2 & read_sent < bursts & room >= 4 & ~(BUG == AR_DROPS & stalled_ar == 3))
        | (BUG == READS_ON & phase == 0 & done);
    assign m_axi_arid = phase == 1 ? 0 : table_turn ? 1 : 2;
    assign m_axi_araddr = (phase == 1 ? descriptor
        : table_turn ? table_base
        : source + {read_sent, 6'b0} + (BUG == CROSSES ? 32 : 0) + (BUG == ODD_ADDRESS ? 4 : 0))
        + (BUG == AR_CHANGES ? {stalled_ar, 4'b0} : 0);
    assign m_axi_arlen = phase != 1 & table_turn ? 0 : 3;
    assign m_axi_arsize = BUG == NARROW ? 3 : 4;
    assign m_axi_arburst = 1;
    assign m_axi_arcache = 3;
    assign m_axi_arprot = 0;
    assign m_axi_rready = 1;
    wire ar = m_axi_arvalid & m_axi_arready;
    wire r = m_axi_rvalid & m_axi_rready;

    // Writes: an address as soon as its four beats are there, the beats behind it.
    reg writing;
    assign m_axi_awid = 0;
    assign m_axi_awvalid = phase == 2 & ~writing & level >= 4 & write_sent < bursts
        & ~(BUG == AW_DROPS & stalled_aw == 2);
    assign m_axi_awaddr = target + {write_sent, 6'b0} + (BUG == AW_CHANGES ? {stalled_aw, 4'b0} : 0);
    assign m_axi_awlen = 3;
    assign m_axi_awsize = 4;
    assign m_axi_awburst = 1;
    assign m_axi_awcache = 3;
    assign m_axi_awprot = 0;
    assign m_axi_wvalid = writing & ~(BUG == W_DROPS & stalled_w == 2);
    assign m_axi_wdata = fifo[head[5:0]] ^ (BUG == W_CHANGES ? {112'b0, stalled_w} : 0)
        ^ (BUG == WRONG_BYTE & written == 1 & beat == 2 ? 8 : 0);
    assign m_axi_wstrb = 16'hFFFF;
    assign m_axi_wlast = beat == (BUG == LAST_EARLY ? 2 : 3) & BUG != NO_LAST;
    assign m_axi_bready = 1;
    wire aw = m_axi_awvalid & m_axi_awready;
    wire w = m_axi_wvalid & m_axi_wready;
    wire b = m_axi_bvalid & m_axi_bready;

    always @(posedge clk) begin
        stalled_ar <= m_axi_arvalid & ~m_axi_arready ? stalled_ar + 1 : 0;
        stalled_aw <= m_axi_awvalid & ~m_axi_awready ? stalled_aw + 1 : 0;
        stalled_w <= m_axi_wvalid & ~m_axi_wready ? stalled_w + 1 : 0;
        finish <= 0;
        reads_out <= reads_out + ar - (r & m_axi_rlast);
        if (busy) cycles <= cycles + 1;
        if (ar & phase == 1) descriptor_sent <= 1;
        if (r & m_axi_rresp != 0) begin failed <= 1; error <= 6; end
        if (r & m_axi_rid == 0) begin
            beat <= beat + 1;
            if (beat == 0) BUG <= m_axi_rdata[7:0];
            if (beat == 1) {source, table_base} <= {m_axi_rdata[103:64], m_axi_rdata[39:0]};
            if (beat == 2) begin
                target <= m_axi_rdata[39:0];
                bursts <= m_axi_rdata[127:96] >> 2;
            end
            if (m_axi_rlast) begin phase <= 2; beat <= 0; end
        end
        if (ar & phase == 2) begin
            table_turn <= ~table_turn;
            if (table_turn) read_sent <= read_sent + 1;
        end
        room <= room - (ar & phase == 2 & ~table_turn ? 4 : 0) + w;
        if (r & m_axi_rid == 2) begin fifo[tail[5:0]] <= m_axi_rdata; tail <= tail + 1; end
        if (aw) begin writing <= 1; write_sent <= write_sent + 1; end
        if (w) begin
            head <= head + 1;
            beat <= beat + 1;
            if (beat == 3) begin writing <= 0; written <= written + 1; end
        end
        if (b) begin
            answered <= answered + 1;
            if (m_axi_bresp != 0) begin failed <= 1; error <= 7; end
        end
        if (phase == 2 & ~finish & BUG != HANGS
            & (BUG == ENDS_EARLY ? written == bursts
               : answered == bursts & read_sent == bursts & reads_out == 0)) begin
            phase <= 0; busy <= 0; finish <= 1; done <= 1;
            pending <= pending | {failed, 1'b1};
        end
        // Registers.
        if (s_axil_bvalid & s_axil_bready) s_axil_bvalid <= 0;
        if (write) begin
            s_axil_bvalid <= 1;
            case (s_axil_awaddr)
                12'h14: pending <= pending & ~s_axil_wdata[1:0];
                12'h18: enable <= s_axil_wdata[1:0];
                12'h1C: descriptor[31:0] <= s_axil_wdata;
                12'h20: descriptor[39:32] <= s_axil_wdata[7:0];
                default: ;
            endcase
        end
        if (s_axil_rvalid & s_axil_rready) s_axil_rvalid <= 0;
        if (s_axil_arvalid & s_axil_arready) begin
            s_axil_rvalid <= 1;
            case (s_axil_araddr)
                12'h0C: s_axil_rdata <= {failed, done, busy};
                12'h10: s_axil_rdata <= {28'b0, error};
                12'h14: s_axil_rdata <= pending;
                12'h100: s_axil_rdata <= cycles[31:0];
                12'h104: s_axil_rdata <= cycles[63:32];
                default: s_axil_rdata <= 0;
            endcase
        end
        if (start) begin
            busy <= 1; done <= 0; failed <= 0; error <= 0; cycles <= 0; phase <= 1;
            read_sent <= 0; write_sent <= 0; written <= 0; answered <= 0; beat <= 0;
            descriptor_sent <= 0; table_turn <= 0; head <= 0; tail <= 0; room <= 64; writing <= 0;
        end
        if (rst) begin
            busy <= 0; done <= 0; failed <= 0; phase <= 0; enable <= 0; pending <= 0;
            s_axil_bvalid <= 0; s_axil_rvalid <= 0; reads_out <= 0; finish <= 0; error <= 0;
            writing <= 0; table_turn <= 0; head <= 0; tail <= 0; BUG <= 0;
        end
    end
endmodule
