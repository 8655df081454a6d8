// Whole frames: a memory behind the AXI4 manager, a driver in front of the AXI4-Lite registers,
// protocol checks on every cycle. Started by verification/lib/frame.py as
//
//     simulate JOB RESULTS
//
// JOB is a text file of one command a line (see `main`), or a pipe from which they come as they are
// made; RESULTS gets one JSON object a line, for every `run`, `read` and `violations`. Standard
// output carries nothing but "cycles N", now and then, for a progress bar, and "over" for every
// command of that name, which says that all before it has been done.
//
// Time is the number of the rising clock edge. A transfer "at n" means valid and ready before
// edge n. The timing of the memory is that of designs/memory.py, a fixed latency or the DRAM of
// dram.h; stalls come on top of it.

#include "Vtop.h"
#include "dram.h"
#include "verilated.h"
#if VM_TRACE_FST
#include "verilated_fst_c.h"
using Trace = VerilatedFstC;
#elif VM_TRACE_VCD
#include "verilated_vcd_c.h"
using Trace = VerilatedVcdC;
#endif

#include <algorithm>
#include <array>
#include <cinttypes>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <fstream>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <vector>
#ifdef __linux__
#include <csignal>
#include <sys/prctl.h>
#endif

namespace {

using u8 = uint8_t;
using u32 = uint32_t;
using u64 = uint64_t;

constexpr u64 BEAT = 16;           // bytes of a beat
constexpr u64 PAGE = 4096;         // what a burst must not cross
constexpr u32 INCR = 1, SIZE = 4;  // AxBURST, AxSIZE of a full beat
constexpr u32 OKAY = 0, SLVERR = 2, DECERR = 3;
constexpr u64 NEVER = ~u64{0};
constexpr u32 IDS = 4;

// Register offsets and bits of designs/shell.py, which tests/test_frame_bench.py compares.
constexpr u32 CONTROL = 0x08, STATUS = 0x0C, ERROR = 0x10, IRQ_STATUS = 0x14, IRQ_ENABLE = 0x18;
constexpr u32 DESCRIPTOR_LOW = 0x1C, DESCRIPTOR_HIGH = 0x20, COUNTER_BASE = 0x100;
constexpr u32 START = 1, ABORT = 2, RESET = 4, SNAPSHOT = 8, BUSY = 1;

[[noreturn]] void fail(const char* format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(2);
}

struct Random {  // xorshift64*
    u64 state = 1;
    void seed(u64 value) { state = value * 0x9E3779B97F4A7C15u + 0x1234567887654321u; }
    u64 operator()() {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        return state * 0x2545F4914F6CDD1Du;
    }
};

struct Segment {
    u64 address, size;
    bool writable;
    std::unique_ptr<u8[]> data;
    bool holds(u64 first, u64 bytes) const {
        return first >= address && first - address <= size && bytes <= size - (first - address);
    }
};

struct Memory {
    std::vector<Segment> segments;
    Segment* find(u64 address, u64 bytes) {
        for (auto& segment : segments)
            if (segment.holds(address, bytes)) return &segment;
        return nullptr;
    }
};

struct Timing {
    u64 latency = 100, read_num = 1, read_den = 1, write_num = 1, write_den = 1, outstanding = 32;
};

struct Fault {
    bool write;
    u32 id;
    u64 burst, beat;
    u32 response;
};

struct Burst {
    u64 address, accepted;
    u32 id, beats;
    u64 number;  // of this ID in this frame, for faults
    u32 done = 0, response = OKAY;
};

struct Address {  // payload of AR or AW, for the stability check
    u64 addr = 0;
    u32 id = 0, len = 0, size = 0, burst = 0, cache = 0, prot = 0;
    bool operator==(const Address& o) const {
        return addr == o.addr && id == o.id && len == o.len && size == o.size &&
               burst == o.burst && cache == o.cache && prot == o.prot;
    }
};

struct Counts {
    u64 read_bytes[IDS] = {}, read_bursts[IDS] = {}, written_bytes = 0, write_bursts = 0;
    u64 write_beats = 0, ar_waits = 0, aw_waits = 0, w_waits = 0;
};

class Bench {
  public:
    explicit Bench(const char* results) : results_(fopen(results, "w")) {
        if (!results_) fail("%s: cannot be written", results);
#if VM_TRACE
        Verilated::traceEverOn(true);
#endif
        top_ = std::make_unique<Vtop>(&context_);
        top_->clk = 0;
        reset(4);
    }
    ~Bench() {
#if VM_TRACE
        if (trace_) trace_->close();
#endif
        top_->final();
        fclose(results_);
    }

    Memory memory;
    Timing timing;
    std::vector<Fault> faults;
    u32 counters = 0;
    std::string dram_log;  // file for the commands of the next frame
    bool interleave = false;
    u64 idle_limit = 100000;

    void stall(const std::array<double, 6>& probability, u64 seed) {
        stalling_ = false;
        for (size_t k = 0; k < probability.size(); ++k) {
            threshold_[k] = static_cast<u32>(probability[k] * 1024);
            stalling_ |= threshold_[k] != 0;
        }
        random_.seed(seed);
    }

    void trace(const std::string& path, u64 from, u64 to) {
#if VM_TRACE
        trace_ = std::make_unique<Trace>();
        top_->trace(trace_.get(), 99);
        trace_->open(path.c_str());
        if (!trace_->isOpen()) fail("%s: cannot be written", path.c_str());
        trace_from_ = from;
        trace_to_ = to;
#else
        (void)path, (void)from, (void)to;
        fail("this simulation was built without waves");
#endif
    }

    void use_dram(const dram::Constants& constants) {
        dram_ = std::make_unique<dram::Memory>(constants);
        begin_dram();
    }

    void reset(u64 cycles) {
        top_->rst = 1;
        for (u64 k = 0; k < cycles; ++k) step();
        top_->rst = 0;
        step();  // what is reset sees it a cycle later
    }

    u32 read(u32 offset) {
        lite_read_ = true;
        lite_offset_ = offset;
        lite_wait();
        return lite_value_;
    }

    // Returns the edge at which the write was accepted.
    u64 write(u32 offset, u32 value) {
        lite_write_ = true;
        lite_offset_ = offset;
        lite_value_ = value;
        lite_wait();
        return lite_accepted_;
    }

    struct Job {
        u64 descriptor = 0, abort_at = NEVER, reset_at = NEVER, snapshot_at = NEVER;
        u64 watchdog = NEVER;
        u32 irq_enable = 3;
    };

    bool run(const Job& job) {
        counts_ = Counts{};
        std::fill(std::begin(burst_number_), std::end(burst_number_), 0);
        write_number_ = 0;
        last_response_ = 0;
        idle_ = false;
        hang_.clear();
        write(DESCRIPTOR_LOW, static_cast<u32>(job.descriptor));
        write(DESCRIPTOR_HIGH, static_cast<u32>(job.descriptor >> 32));
        write(IRQ_ENABLE, job.irq_enable);
        if (top_->irq) violate("IRQ is high before the frame");
        starting_ = true;
        const u64 start = write(CONTROL, START);
        active_ = now_;
        bool injected = false, was_reset = false;
        u64 abort_at = after(start, job.abort_at), reset_at = after(start, job.reset_at);
        u64 snapshot_at = after(start, job.snapshot_at);
        const u64 end = after(start, job.watchdog);
        std::vector<u64> snapshot;
        u32 status = 0;
        while (true) {
            if (job.irq_enable ? top_->irq : !((status = read(STATUS)) & BUSY)) break;
            if (now_ >= abort_at) {
                write(CONTROL, ABORT);
                abort_at = NEVER;
                injected = true;
                continue;
            }
            if (now_ >= reset_at) {
                write(CONTROL, RESET);
                injected = was_reset = true;
                while (read(STATUS) & BUSY && hang_.empty()) check_hang(start, end);
                break;
            }
            if (now_ >= snapshot_at) {
                write(CONTROL, SNAPSHOT);
                snapshot = read_counters();
                snapshot_at = NEVER;
                injected = true;
                continue;
            }
            if (check_hang(start, end)) break;
            if (job.irq_enable) step();
        }
        const u64 ended = now_;
        const bool irq = top_->irq;
        quiet();
        // Posted writes are still on their way into the array.
        while (dram_ && last_response_ && hang_.empty() && !drained_) step();
        idle_ = true;
        fprintf(results_, "{\"run\": {\"ended_after\": %" PRIu64, ended - start);
        if (last_response_ > start)
            fprintf(results_, ", \"cycles\": %" PRIu64, last_response_ - start);
        if (!hang_.empty()) {
            fprintf(results_, ", \"hang\": \"%s\"", hang_.c_str());
        } else {
            status = read(STATUS);
            const u32 error = read(ERROR), irq_status = read(IRQ_STATUS);
            const std::vector<u64> values = read_counters();
            write(IRQ_STATUS, irq_status);
            fprintf(results_, ", \"status\": %u, \"error\": %u, \"irq_status\": %u", status, error,
                    irq_status);
            fprintf(results_, ", \"irq\": %s, \"irq_cleared\": %s", irq ? "true" : "false",
                    top_->irq ? "false" : "true");
            print("counters", values);
        }
        fprintf(results_, ", \"injected\": %s, \"was_reset\": %s", injected ? "true" : "false",
                was_reset ? "true" : "false");
        if (!snapshot.empty()) print("snapshot", snapshot);
        if (drained_) print("dram", dram_counts_);
        dram_log.clear();
        begin_dram();
        print("read_bytes", {std::begin(counts_.read_bytes), std::end(counts_.read_bytes)});
        print("read_bursts", {std::begin(counts_.read_bursts), std::end(counts_.read_bursts)});
        fprintf(results_,
                ", \"written_bytes\": %" PRIu64 ", \"write_bursts\": %" PRIu64
                ", \"write_beats\": %" PRIu64 ", \"ar_waits\": %" PRIu64 ", \"aw_waits\": %" PRIu64
                ", \"w_waits\": %" PRIu64 "}}\n",
                counts_.written_bytes, counts_.write_bursts, counts_.write_beats,
                counts_.ar_waits, counts_.aw_waits, counts_.w_waits);
        fflush(results_);
        faults.clear();
        return hang_.empty();
    }

    void print_read(u32 offset) {
        fprintf(results_, "{\"read\": {\"offset\": %u, \"value\": %u}}\n", offset, read(offset));
    }

    void print_violations() {
        fprintf(results_, "{\"violations\": [");
        for (size_t k = 0; k < violations_.size(); ++k)
            fprintf(results_, "%s\"%s\"", k ? ", " : "", violations_[k].c_str());
        fprintf(results_, "], \"total_cycles\": %" PRIu64 "}\n", now_);
        fflush(results_);
    }

  private:
    enum Channel { AR, R, AW, W, B, LITE };

    static u64 after(u64 start, u64 delay) { return delay == NEVER ? NEVER : start + delay; }

    void print(const char* name, const std::vector<u64>& values) {
        fprintf(results_, ", \"%s\": [", name);
        for (size_t k = 0; k < values.size(); ++k)
            fprintf(results_, "%s%" PRIu64, k ? ", " : "", values[k]);
        fputc(']', results_);
    }

    std::vector<u64> read_counters() {
        std::vector<u64> values(counters);
        for (u32 k = 0; k < counters; ++k) {
            const u64 low = read(COUNTER_BASE + 8 * k);
            values[k] = low | static_cast<u64>(read(COUNTER_BASE + 8 * k + 4)) << 32;
        }
        return values;
    }

    void violate(const char* format, ...) __attribute__((format(printf, 2, 3))) {
        if (violations_.size() >= 20) return;
        char text[256];
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(text, sizeof text, format, arguments);
        va_end(arguments);
        violations_.push_back("cycle " + std::to_string(now_) + ": " + text);
    }

    bool check_hang(u64 start, u64 end) {
        if (now_ < end && now_ - active_ < idle_limit) return false;
        char text[256];
        snprintf(text, sizeof text,
                 "%s after %" PRIu64 " cycles: %zu reads and %zu writes outstanding, "
                 "ARVALID %d, AWVALID %d, WVALID %d, RREADY %d, BREADY %d",
                 now_ < end ? "the bus fell silent" : "the frame has not ended", now_ - start,
                 read_count_, write_count_, top_->m_axi_arvalid, top_->m_axi_awvalid, top_->m_axi_wvalid,
                 top_->m_axi_rready, top_->m_axi_bready);
        hang_ = text;
        return true;
    }


    // The end of a frame: nothing may be left on the bus.
    void quiet() {
        if (!hang_.empty()) return;
        if (read_count_ || write_count_)
            violate("the frame ended with %zu reads and %zu writes outstanding", read_count_,
                    write_count_);
    }

    void lite_wait() {
        lite_sent_address_ = lite_sent_data_ = lite_show_address_ = lite_show_data_ = false;
        const u64 limit = now_ + 1000 + idle_limit;
        while (lite_read_ || lite_write_) {
            step();
            if (now_ > limit) {
                violate("the register at 0x%x does not answer", lite_offset_);
                hang_ = "the registers do not answer";
                lite_read_ = lite_write_ = false;
            }
        }
    }

    u32 fault(bool is_write, u32 id, u64 burst, u64 beat) const {
        for (const auto& f : faults)
            if (f.write == is_write && f.burst == burst && (is_write || (f.id == id && f.beat == beat)))
                return f.response;
        return OKAY;
    }

    u64 cycle() const { return now_ - dram_start_; }

    // The memory as it is at the start of a frame, in this cycle.
    void begin_dram() {
        if (!dram_) return;
        if (dram_log_) fclose(dram_log_);
        dram_log_ = nullptr;
        if (!dram_log.empty() && !(dram_log_ = fopen(dram_log.c_str(), "wb")))
            fail("%s: cannot be written", dram_log.c_str());
        dram_->begin(dram_log_);
        dram_start_ = now_;
        drained_ = false;
    }

    void advance_dram() {
        dram_->advance(static_cast<dram::i64>(cycle()));
        if (!last_response_) return;
        // The first cycle behind the frame's last response in which nothing is left to do.
        if (!dram_->idle()) {
            drained_ = false;
        } else if (!drained_) {
            drained_ = true;
            const dram::Counts counts = dram_->counts();
            const dram::i64 clocks = dram_->clocks();
            dram_counts_.clear();
            for (dram::i64 value :
                 {clocks, counts.activates, counts.precharges, counts.reads, counts.writes,
                  counts.refreshes, counts.bank_refreshes, counts.hits[0], counts.hits[1],
                  counts.hits[2], dram_->open_clocks(clocks)})
                dram_counts_.push_back(static_cast<u64>(value));
        }
    }

    // What the memory and the driver show before edge `now_`.
    void drive() {
        u64 bits = 0;
        if (stalling_) bits = random_();
        const auto held = [&](Channel channel) {
            return (bits >> (10 * channel) & 1023) < threshold_[channel];
        };
        Vtop& top = *top_;
        const bool may_read = dram_ ? dram_->may_read() : read_count_ < timing.outstanding;
        const bool may_write = dram_ ? dram_->may_write() : write_count_ < timing.outstanding;
        top.m_axi_arready = may_read && !held(AR);
        if (!r_shown_ && read_count_) show_read(held(R));
        top.m_axi_rvalid = r_shown_;
        top.m_axi_awready = may_write && !held(AW);
        const bool may_write_beat =
            dram_ ? dram_->may_write_beat()
                  : !data_.empty() && now_ * timing.write_num >= write_time_ + write_step_;
        top.m_axi_wready = may_write_beat && !held(W);
        if (!b_shown_ && !responses_.empty() && !held(B)) {
            const Burst& burst = responses_.front();
            if (dram_ ? answered() : now_ >= burst.accepted + timing.latency) {
                b_shown_ = true;
                top.m_axi_bid = burst.id;
                top.m_axi_bresp = burst.response;
            }
        }
        top.m_axi_bvalid = b_shown_;
        if (lite_read_ || lite_write_) drive_lite(held(LITE));
    }

    void show_read(bool held) {
        u32 id = IDS;
        if (interleave) {
            u32 ready[IDS], count = 0;
            for (u32 k = 0; k < IDS; ++k)
                if (!queue_[k].empty() && due(queue_[k].front())) ready[count++] = k;
            if (count) id = ready[random_() % count];
        } else if (due(queue_[order_.front()].front())) {
            id = order_.front();
        }
        if (id == IDS || held) return;
        const Burst& burst = queue_[id].front();
        Vtop& top = *top_;
        const u64 address = (burst.address & ~(BEAT - 1)) + BEAT * burst.done;
        u32 response = fault(false, id, burst.number, burst.done);
        const Segment* segment = memory.find(address, BEAT);
        if (!segment) response = DECERR;
        if (response == OKAY)
            memcpy(&top.m_axi_rdata[0], segment->data.get() + (address - segment->address), BEAT);
        else
            for (u32 k = 0; k < 4; ++k) top.m_axi_rdata[k] = 0xBAD0BAD0;
        top.m_axi_rid = id;
        top.m_axi_rresp = response;
        top.m_axi_rlast = burst.done + 1 == burst.beats;
        r_shown_ = true;
    }

    // Whether the next beat of a burst may be taken now; its earliest time in units of 1/num.
    bool due(const Burst& burst) {
        if (dram_) return static_cast<dram::i64>(cycle()) >= dram_->beat_due();
        read_due_ = std::max((burst.accepted + timing.latency) * timing.read_num,
                             read_time_ + read_step_);
        return now_ * timing.read_num >= read_due_;
    }

    bool answered() const { return static_cast<dram::i64>(cycle()) >= dram_->response_due(); }

    void drive_lite(bool held) {
        Vtop& top = *top_;
        top.s_axil_bready = top.s_axil_rready = !held;
        if (lite_read_) {
            if (!lite_sent_address_ && !held) lite_show_address_ = true;
            top.s_axil_arvalid = lite_show_address_;
            top.s_axil_araddr = lite_offset_;
            return;
        }
        if (!lite_sent_address_ && (!stalling_ || !held)) lite_show_address_ = true;
        if (!lite_sent_data_ && (!stalling_ || (random_() & 1))) lite_show_data_ = true;
        top.s_axil_awvalid = lite_show_address_;
        top.s_axil_awaddr = lite_offset_;
        top.s_axil_wvalid = lite_show_data_;
        top.s_axil_wdata = lite_value_;
        top.s_axil_wstrb = 15;
    }

    void sample_lite() {
        Vtop& top = *top_;
        if (lite_read_) {
            if (lite_show_address_ && top.s_axil_arready) {
                lite_show_address_ = false;
                lite_sent_address_ = true;
            }
            if (top.s_axil_rvalid && top.s_axil_rready) {
                if (!lite_sent_address_) violate("RVALID of the registers without a read");
                if (top.s_axil_rresp != OKAY) violate("a register read got RRESP %u", top.s_axil_rresp);
                lite_value_ = top.s_axil_rdata;
                lite_read_ = false;
            }
        } else if (lite_write_) {
            if (lite_show_address_ && top.s_axil_awready) {
                lite_show_address_ = false;
                lite_sent_address_ = true;
                lite_accepted_ = now_;
            }
            if (lite_show_data_ && top.s_axil_wready) {
                lite_show_data_ = false;
                lite_sent_data_ = true;
                lite_accepted_ = now_;
            }
            // Address and data of START are there.
            if (starting_ && lite_sent_address_ && lite_sent_data_) {
                starting_ = false;
                begin_dram();
            }
            if (top.s_axil_bvalid && top.s_axil_bready) {
                if (!lite_sent_address_ || !lite_sent_data_)
                    violate("BVALID of the registers before the write");
                if (top.s_axil_bresp != OKAY) violate("a register write got BRESP %u", top.s_axil_bresp);
                lite_write_ = false;
            }
        }
        lite_clear_ = !lite_read_ && !lite_write_;
    }

    void check_address(const char* name, const Address& a) {
        const u64 bytes = (u64{a.len} + 1) * BEAT;
        if (a.size != SIZE || a.burst != INCR)
            violate("%s of size %u and burst %u, not full beats in INCR", name, a.size, a.burst);
        if (a.addr % BEAT) violate("%s at 0x%" PRIx64 ", not a whole beat", name, a.addr);
        if (a.addr / PAGE != (a.addr + bytes - 1) / PAGE)
            violate("%s burst of %u beats at 0x%" PRIx64 " crosses 4 KiB", name, a.len + 1, a.addr);
    }

    // Reads and writes in flight may overtake each other: what a burst reads nobody may be
    // writing, and what it writes nobody may be reading or writing.
    void check_overlap(const char* name, const Address& a, const std::deque<Burst>& others) {
        const u64 end = a.addr + (u64{a.len} + 1) * BEAT;
        for (const auto& other : others)
            if (a.addr < other.address + other.beats * BEAT && other.address < end)
                violate("%s at 0x%" PRIx64 " overlaps a burst at 0x%" PRIx64 " that is in flight",
                        name, a.addr, other.address);
    }

    void sample_read() {
        Vtop& top = *top_;
        if (top.m_axi_arvalid || ar_held_) {
            Address a;
            a.addr = top.m_axi_araddr;
            a.id = top.m_axi_arid;
            a.len = top.m_axi_arlen;
            a.size = top.m_axi_arsize;
            a.burst = top.m_axi_arburst;
            a.cache = top.m_axi_arcache;
            a.prot = top.m_axi_arprot;
            if (ar_held_ && !top.m_axi_arvalid) violate("ARVALID fell before ARREADY");
            else if (ar_held_ && !(a == ar_)) violate("AR changed before ARREADY");
            ar_ = a;
            ar_held_ = top.m_axi_arvalid && !top.m_axi_arready;
            counts_.ar_waits += ar_held_;
            if (top.m_axi_arvalid && top.m_axi_arready) {
                if (idle_) violate("a read address without a frame");
                check_address("AR", a);
                check_overlap("AR", a, data_);
                check_overlap("AR", a, responses_);
                active_ = now_;
                queue_[a.id].push_back({a.addr, now_, a.id, a.len + 1, burst_number_[a.id]++});
                if (!interleave) order_.push_back(a.id);
                ++read_count_;
                ++counts_.read_bursts[a.id];
                if (dram_)
                    dram_->read(static_cast<dram::i64>(cycle()), static_cast<dram::i64>(a.addr),
                                a.len + 1);
            }
        }
        if (r_shown_ && top.m_axi_rready) {
            const u32 id = top.m_axi_rid;
            Burst& burst = queue_[id].front();
            active_ = now_;
            if (interleave) due(burst);
            // On time the fraction of a cycle is kept; a late beat starts a new count.
            const u64 first = (read_due_ + timing.read_num - 1) / timing.read_num;
            read_time_ = now_ == first ? read_due_ : now_ * timing.read_num;
            read_step_ = timing.read_den;
            counts_.read_bytes[id] += BEAT;
            r_shown_ = false;
            if (dram_) dram_->take_beat();
            if (++burst.done == burst.beats) {
                queue_[id].pop_front();
                if (!interleave) order_.pop_front();
                --read_count_;
            }
        }
    }

    void sample_write() {
        Vtop& top = *top_;
        const bool addressed = !data_.empty();  // before this edge
        if (top.m_axi_awvalid || aw_held_) {
            Address a;
            a.addr = top.m_axi_awaddr;
            a.id = top.m_axi_awid;
            a.len = top.m_axi_awlen;
            a.size = top.m_axi_awsize;
            a.burst = top.m_axi_awburst;
            a.cache = top.m_axi_awcache;
            a.prot = top.m_axi_awprot;
            if (aw_held_ && !top.m_axi_awvalid) violate("AWVALID fell before AWREADY");
            else if (aw_held_ && !(a == aw_)) violate("AW changed before AWREADY");
            aw_ = a;
            aw_held_ = top.m_axi_awvalid && !top.m_axi_awready;
            counts_.aw_waits += aw_held_;
            if (top.m_axi_awvalid && top.m_axi_awready) {
                if (idle_) violate("a write address without a frame");
                check_address("AW", a);
                check_overlap("AW", a, data_);
                check_overlap("AW", a, responses_);
                for (const auto& queue : queue_) check_overlap("AW", a, queue);
                active_ = now_;
                data_.push_back({a.addr, now_, a.id, a.len + 1, write_number_++});
                ++write_count_;
                ++counts_.write_bursts;
                if (dram_) dram_->write(static_cast<dram::i64>(a.addr), a.len + 1);
            }
        }
        if (top.m_axi_wvalid || w_held_) {
            u32 w[6];
            memcpy(w, &top.m_axi_wdata[0], BEAT);
            w[4] = top.m_axi_wstrb;
            w[5] = top.m_axi_wlast;
            if (idle_) violate("write data without a frame");
            if (w_held_ && !top.m_axi_wvalid) violate("WVALID fell before WREADY");
            else if (w_held_ && memcmp(w, w_, sizeof w)) violate("W changed before WREADY");
            memcpy(w_, w, sizeof w);
            w_held_ = top.m_axi_wvalid && !top.m_axi_wready;
            counts_.w_waits += w_held_;
            if (addressed && !w_seen_) {
                w_seen_ = true;
                w_available_ = now_;
            }
            if (top.m_axi_wvalid && top.m_axi_wready) take_write(w);
        }
        if (b_shown_ && top.m_axi_bready) {
            active_ = now_;
            last_response_ = now_;
            responses_.pop_front();
            if (dram_) dram_->take_response();
            --write_count_;
            b_shown_ = false;
        }
    }

    void take_write(const u32* w) {
        active_ = now_;
        Burst& burst = data_.front();
        write_time_ = std::max(w_available_ * timing.write_num, write_time_ + write_step_);
        write_step_ = timing.write_den;
        w_seen_ = false;
        const bool last = burst.done + 1 == burst.beats;
        if (static_cast<bool>(w[5]) != last)
            violate("WLAST is %u at beat %u of %u", w[5], burst.done + 1, burst.beats);
        const u64 address = (burst.address & ~(BEAT - 1)) + BEAT * burst.done;
        ++counts_.write_beats;
        if (w[4]) {
            const u32 first = __builtin_ctz(w[4]), end = 32 - __builtin_clz(w[4]);
            Segment* segment = memory.find(address + first, end - first);
            if (!segment) burst.response = DECERR;
            else if (!segment->writable) burst.response = SLVERR;
            const u8* bytes = reinterpret_cast<const u8*>(w);
            for (u32 k = first; k < end; ++k) {
                if (!(w[4] >> k & 1)) continue;
                ++counts_.written_bytes;
                if (burst.response == OKAY)
                    segment->data[address + k - segment->address] = bytes[k];
            }
        }
        ++burst.done;
        if (dram_) dram_->write_beat(static_cast<dram::i64>(cycle()));
        if (last) {
            if (u32 response = fault(true, 0, burst.number, 0)) burst.response = response;
            burst.accepted = now_;
            responses_.push_back(burst);
            data_.pop_front();
        }
    }

    void step() {
        Vtop& top = *top_;
        drive();
        top.clk = 0;
        top.eval();
#if VM_TRACE
        const bool traced = trace_ && now_ >= trace_from_ && now_ < trace_to_;
        if (traced) trace_->dump(2 * now_);
#endif
        if (!top.rst) {
            sample_read();
            sample_write();
            if (lite_read_ || lite_write_) sample_lite();
        }
        if (dram_) advance_dram();
        top.clk = 1;
        top.eval();
#if VM_TRACE
        if (traced) trace_->dump(2 * now_ + 1);
#endif
        if (lite_clear_) {
            // The driver is between two accesses.
            lite_clear_ = false;
            top.s_axil_awvalid = top.s_axil_wvalid = top.s_axil_arvalid = 0;
            top.s_axil_bready = top.s_axil_rready = 0;
        }
        if (!(++now_ & ((1 << 18) - 1))) {
            printf("cycles %" PRIu64 "\n", now_);
            fflush(stdout);
        }
    }

    VerilatedContext context_;
    std::unique_ptr<Vtop> top_;
#if VM_TRACE
    std::unique_ptr<Trace> trace_;
    u64 trace_from_ = 0, trace_to_ = 0;
#endif
    FILE* results_;
    u64 now_ = 1, active_ = 0;
    bool idle_ = true;
    std::vector<std::string> violations_;
    std::string hang_;

    std::unique_ptr<dram::Memory> dram_;
    FILE* dram_log_ = nullptr;
    u64 dram_start_ = 0;
    bool starting_ = false;
    bool drained_ = false;
    std::vector<u64> dram_counts_;

    Random random_;
    bool stalling_ = false;
    u32 threshold_[6] = {};

    std::deque<Burst> queue_[IDS];  // reads by ID, oldest first
    std::deque<u32> order_;         // IDs in order of acceptance
    size_t read_count_ = 0;
    u64 burst_number_[IDS] = {};
    u64 read_time_ = 0, read_step_ = 0, read_due_ = 0;
    bool r_shown_ = false, ar_held_ = false;
    Address ar_;

    std::deque<Burst> data_, responses_;
    size_t write_count_ = 0;
    u64 write_number_ = 0, write_time_ = 0, write_step_ = 0, w_available_ = 0, last_response_ = 0;
    bool aw_held_ = false, w_held_ = false, w_seen_ = false, b_shown_ = false;
    Address aw_;
    u32 w_[6] = {};

    bool lite_read_ = false, lite_write_ = false, lite_clear_ = false;
    bool lite_show_address_ = false, lite_show_data_ = false;
    bool lite_sent_address_ = false, lite_sent_data_ = false;
    u32 lite_offset_ = 0, lite_value_ = 0;
    u64 lite_accepted_ = 0;
    Counts counts_;
};

void map_segment(Memory& memory, std::istringstream& line) {
    u64 address, size, offset;
    std::string access, path;
    if (!(line >> address >> size >> access >> path >> offset)) fail("map: five words");
    Segment segment{address, size, access == "w", std::make_unique<u8[]>(size ? size : 1)};
    if (path == "-") {
        memset(segment.data.get(), static_cast<int>(offset), size);
    } else {
        std::ifstream file(path, std::ios::binary);
        file.seekg(static_cast<std::streamoff>(offset));
        if (!file.read(reinterpret_cast<char*>(segment.data.get()), static_cast<std::streamsize>(size)))
            fail("%s: shorter than the job says", path.c_str());
    }
    memory.segments.push_back(std::move(segment));
}

void dump_segment(Memory& memory, std::istringstream& line) {
    u64 address, size;
    std::string path;
    if (!(line >> address >> size >> path)) fail("dump: three words");
    const Segment* segment = memory.find(address, size);
    if (!segment) fail("dump: no such memory");
    std::ofstream file(path, std::ios::binary);
    file.write(reinterpret_cast<const char*>(segment->data.get() + (address - segment->address)),
               static_cast<std::streamsize>(size));
    file.close();
    if (!file) fail("%s: cannot be written", path.c_str());
}

dram::Constants parse_dram(std::istringstream& line) {
    dram::Constants constants{};
    static_assert(sizeof constants % sizeof(dram::i64) == 0, "only integers");
    std::vector<dram::i64> values(sizeof constants / sizeof(dram::i64));
    for (auto& value : values)
        if (!(line >> value)) fail("dram: %zu numbers", values.size());
    memcpy(&constants, values.data(), sizeof constants);
    return constants;
}

Bench::Job parse_run(std::istringstream& line) {
    Bench::Job job;
    std::map<std::string, u64*> keys{
        {"descriptor", &job.descriptor}, {"abort_at", &job.abort_at}, {"reset_at", &job.reset_at},
        {"snapshot_at", &job.snapshot_at}, {"watchdog", &job.watchdog}};
    std::string key;
    u64 value;
    while (line >> key >> value) {
        if (key == "irq_enable") job.irq_enable = static_cast<u32>(value);
        else if (keys.count(key)) *keys[key] = value;
        else fail("run: unknown word %s", key.c_str());
    }
    return job;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 3) fail("usage: simulate JOB RESULTS");
#ifdef __linux__
    // Whoever waits for the results may be killed: nobody is left to end this process then.
    prctl(PR_SET_PDEATHSIG, SIGKILL);
#endif
    std::ifstream job(argv[1]);
    if (!job) fail("%s: cannot be read", argv[1]);
    Bench bench(argv[2]);
    std::string text, command;
    bool alive = true;
    while (alive && std::getline(job, text)) {
        std::istringstream line(text);
        if (!(line >> command)) continue;
        if (command == "map") {  // ADDRESS BYTES r|w FILE OFFSET, or ... - FILL
            map_segment(bench.memory, line);
        } else if (command == "unmap") {
            bench.memory.segments.clear();
        } else if (command == "dump") {  // ADDRESS BYTES FILE
            dump_segment(bench.memory, line);
        } else if (command == "timing") {
            Timing& t = bench.timing;
            if (!(line >> t.latency >> t.read_num >> t.read_den >> t.write_num >> t.write_den >>
                  t.outstanding))
                fail("timing: six numbers");
        } else if (command == "dram") {  // the constants of sim/dram.py
            bench.use_dram(parse_dram(line));
        } else if (command == "dram_log") {  // FILE for the commands of the next frame
            line >> bench.dram_log;
        } else if (command == "counters") {
            line >> bench.counters;
        } else if (command == "interleave") {
            line >> bench.interleave;
        } else if (command == "idle_limit") {
            line >> bench.idle_limit;
        } else if (command == "stall") {  // six probabilities (AR R AW W B registers) and a seed
            std::array<double, 6> probability;
            u64 seed;
            for (auto& p : probability) line >> p;
            if (!(line >> seed)) fail("stall: six probabilities and a seed");
            bench.stall(probability, seed);
        } else if (command == "fault") {  // read|write ID BURST BEAT RESPONSE
            std::string kind;
            Fault fault{};
            if (!(line >> kind >> fault.id >> fault.burst >> fault.beat >> fault.response))
                fail("fault: five words");
            fault.write = kind == "write";
            bench.faults.push_back(fault);
        } else if (command == "trace") {  // FILE FROM TO
            std::string path;
            u64 from, to;
            if (!(line >> path >> from >> to)) fail("trace: three words");
            bench.trace(path, from, to);
        } else if (command == "reset") {
            u64 cycles;
            line >> cycles;
            bench.reset(cycles);
        } else if (command == "write") {
            u32 offset, value;
            line >> offset >> value;
            bench.write(offset, value);
        } else if (command == "read") {
            u32 offset;
            line >> offset;
            bench.print_read(offset);
        } else if (command == "over") {
            puts("over");
            fflush(stdout);
        } else if (command == "run") {
            alive = bench.run(parse_run(line));
        } else {
            fail("unknown command %s", command.c_str());
        }
    }
    bench.print_violations();
    return 0;
}
