// The raster core (manager 0) and another master (manager 1) before one memory. What software sees of
// the core is its registers (s_axil) and its interrupt.

module system (
    input clk,
    input rst,
    output irq,

    input [11:0] s_axil_awaddr,
    input [2:0] s_axil_awprot,
    input s_axil_awvalid,
    output s_axil_awready,
    input [31:0] s_axil_wdata,
    input [3:0] s_axil_wstrb,
    input s_axil_wvalid,
    output s_axil_wready,
    output [1:0] s_axil_bresp,
    output s_axil_bvalid,
    input s_axil_bready,
    input [11:0] s_axil_araddr,
    input [2:0] s_axil_arprot,
    input s_axil_arvalid,
    output s_axil_arready,
    output [31:0] s_axil_rdata,
    output [1:0] s_axil_rresp,
    output s_axil_rvalid,
    input s_axil_rready,

    // The other master.
    input [1:0] dma_axi_awid,
    input [39:0] dma_axi_awaddr,
    input [7:0] dma_axi_awlen,
    input [2:0] dma_axi_awsize,
    input [1:0] dma_axi_awburst,
    input dma_axi_awvalid,
    output dma_axi_awready,
    input [127:0] dma_axi_wdata,
    input [15:0] dma_axi_wstrb,
    input dma_axi_wlast,
    input dma_axi_wvalid,
    output dma_axi_wready,
    output [1:0] dma_axi_bid,
    output [1:0] dma_axi_bresp,
    output dma_axi_bvalid,
    input dma_axi_bready,
    input [1:0] dma_axi_arid,
    input [39:0] dma_axi_araddr,
    input [7:0] dma_axi_arlen,
    input [2:0] dma_axi_arsize,
    input [1:0] dma_axi_arburst,
    input dma_axi_arvalid,
    output dma_axi_arready,
    output [1:0] dma_axi_rid,
    output [127:0] dma_axi_rdata,
    output [1:0] dma_axi_rresp,
    output dma_axi_rlast,
    output dma_axi_rvalid,
    input dma_axi_rready,

    // The memory.
    output [2:0] mem_axi_awid,
    output [39:0] mem_axi_awaddr,
    output [7:0] mem_axi_awlen,
    output [2:0] mem_axi_awsize,
    output [1:0] mem_axi_awburst,
    output mem_axi_awvalid,
    input mem_axi_awready,
    output [127:0] mem_axi_wdata,
    output [15:0] mem_axi_wstrb,
    output mem_axi_wlast,
    output mem_axi_wvalid,
    input mem_axi_wready,
    input [2:0] mem_axi_bid,
    input [1:0] mem_axi_bresp,
    input mem_axi_bvalid,
    output mem_axi_bready,
    output [2:0] mem_axi_arid,
    output [39:0] mem_axi_araddr,
    output [7:0] mem_axi_arlen,
    output [2:0] mem_axi_arsize,
    output [1:0] mem_axi_arburst,
    output mem_axi_arvalid,
    input mem_axi_arready,
    input [2:0] mem_axi_rid,
    input [127:0] mem_axi_rdata,
    input [1:0] mem_axi_rresp,
    input mem_axi_rlast,
    input mem_axi_rvalid,
    output mem_axi_rready
);

    wire [1:0] core_awid;
    wire [39:0] core_awaddr;
    wire [7:0] core_awlen;
    wire [2:0] core_awsize;
    wire [1:0] core_awburst;
    wire core_awvalid;
    wire core_awready;
    wire [127:0] core_wdata;
    wire [15:0] core_wstrb;
    wire core_wlast;
    wire core_wvalid;
    wire core_wready;
    wire [1:0] core_bid;
    wire [1:0] core_bresp;
    wire core_bvalid;
    wire core_bready;
    wire [1:0] core_arid;
    wire [39:0] core_araddr;
    wire [7:0] core_arlen;
    wire [2:0] core_arsize;
    wire [1:0] core_arburst;
    wire core_arvalid;
    wire core_arready;
    wire [1:0] core_rid;
    wire [127:0] core_rdata;
    wire [1:0] core_rresp;
    wire core_rlast;
    wire core_rvalid;
    wire core_rready;

    raster core (
        .clk(clk), .rst(rst), .irq(irq),
        .s_axil_awaddr(s_axil_awaddr),
        .s_axil_awprot(s_axil_awprot),
        .s_axil_awvalid(s_axil_awvalid),
        .s_axil_awready(s_axil_awready),
        .s_axil_wdata(s_axil_wdata),
        .s_axil_wstrb(s_axil_wstrb),
        .s_axil_wvalid(s_axil_wvalid),
        .s_axil_wready(s_axil_wready),
        .s_axil_bresp(s_axil_bresp),
        .s_axil_bvalid(s_axil_bvalid),
        .s_axil_bready(s_axil_bready),
        .s_axil_araddr(s_axil_araddr),
        .s_axil_arprot(s_axil_arprot),
        .s_axil_arvalid(s_axil_arvalid),
        .s_axil_arready(s_axil_arready),
        .s_axil_rdata(s_axil_rdata),
        .s_axil_rresp(s_axil_rresp),
        .s_axil_rvalid(s_axil_rvalid),
        .s_axil_rready(s_axil_rready),
        .m_axi_awid(core_awid),
        .m_axi_awaddr(core_awaddr),
        .m_axi_awlen(core_awlen),
        .m_axi_awsize(core_awsize),
        .m_axi_awburst(core_awburst),
        .m_axi_awvalid(core_awvalid),
        .m_axi_awready(core_awready),
        .m_axi_awcache(),
        .m_axi_awprot(),
        .m_axi_wdata(core_wdata),
        .m_axi_wstrb(core_wstrb),
        .m_axi_wlast(core_wlast),
        .m_axi_wvalid(core_wvalid),
        .m_axi_wready(core_wready),
        .m_axi_bid(core_bid),
        .m_axi_bresp(core_bresp),
        .m_axi_bvalid(core_bvalid),
        .m_axi_bready(core_bready),
        .m_axi_arid(core_arid),
        .m_axi_araddr(core_araddr),
        .m_axi_arlen(core_arlen),
        .m_axi_arsize(core_arsize),
        .m_axi_arburst(core_arburst),
        .m_axi_arvalid(core_arvalid),
        .m_axi_arready(core_arready),
        .m_axi_arcache(),
        .m_axi_arprot(),
        .m_axi_rid(core_rid),
        .m_axi_rdata(core_rdata),
        .m_axi_rresp(core_rresp),
        .m_axi_rlast(core_rlast),
        .m_axi_rvalid(core_rvalid),
        .m_axi_rready(core_rready)
    );

    axi_two_to_one shared (
        .clk(clk), .rst(rst),
        .s_awid({dma_axi_awid, core_awid}),
        .m_awid(mem_axi_awid),
        .s_awaddr({dma_axi_awaddr, core_awaddr}),
        .m_awaddr(mem_axi_awaddr),
        .s_awlen({dma_axi_awlen, core_awlen}),
        .m_awlen(mem_axi_awlen),
        .s_awsize({dma_axi_awsize, core_awsize}),
        .m_awsize(mem_axi_awsize),
        .s_awburst({dma_axi_awburst, core_awburst}),
        .m_awburst(mem_axi_awburst),
        .s_awvalid({dma_axi_awvalid, core_awvalid}),
        .m_awvalid(mem_axi_awvalid),
        .s_awready({dma_axi_awready, core_awready}),
        .m_awready(mem_axi_awready),
        .s_wdata({dma_axi_wdata, core_wdata}),
        .m_wdata(mem_axi_wdata),
        .s_wstrb({dma_axi_wstrb, core_wstrb}),
        .m_wstrb(mem_axi_wstrb),
        .s_wlast({dma_axi_wlast, core_wlast}),
        .m_wlast(mem_axi_wlast),
        .s_wvalid({dma_axi_wvalid, core_wvalid}),
        .m_wvalid(mem_axi_wvalid),
        .s_wready({dma_axi_wready, core_wready}),
        .m_wready(mem_axi_wready),
        .s_bid({dma_axi_bid, core_bid}),
        .m_bid(mem_axi_bid),
        .s_bresp({dma_axi_bresp, core_bresp}),
        .m_bresp(mem_axi_bresp),
        .s_bvalid({dma_axi_bvalid, core_bvalid}),
        .m_bvalid(mem_axi_bvalid),
        .s_bready({dma_axi_bready, core_bready}),
        .m_bready(mem_axi_bready),
        .s_arid({dma_axi_arid, core_arid}),
        .m_arid(mem_axi_arid),
        .s_araddr({dma_axi_araddr, core_araddr}),
        .m_araddr(mem_axi_araddr),
        .s_arlen({dma_axi_arlen, core_arlen}),
        .m_arlen(mem_axi_arlen),
        .s_arsize({dma_axi_arsize, core_arsize}),
        .m_arsize(mem_axi_arsize),
        .s_arburst({dma_axi_arburst, core_arburst}),
        .m_arburst(mem_axi_arburst),
        .s_arvalid({dma_axi_arvalid, core_arvalid}),
        .m_arvalid(mem_axi_arvalid),
        .s_arready({dma_axi_arready, core_arready}),
        .m_arready(mem_axi_arready),
        .s_rid({dma_axi_rid, core_rid}),
        .m_rid(mem_axi_rid),
        .s_rdata({dma_axi_rdata, core_rdata}),
        .m_rdata(mem_axi_rdata),
        .s_rresp({dma_axi_rresp, core_rresp}),
        .m_rresp(mem_axi_rresp),
        .s_rlast({dma_axi_rlast, core_rlast}),
        .m_rlast(mem_axi_rlast),
        .s_rvalid({dma_axi_rvalid, core_rvalid}),
        .m_rvalid(mem_axi_rvalid),
        .s_rready({dma_axi_rready, core_rready}),
        .m_rready(mem_axi_rready)
    );
endmodule
