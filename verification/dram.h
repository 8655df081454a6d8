// Banked DRAM behind the RTL: the machine of sim/dram.py once more, equal command by command.
//
// `Dram` gets the constants of sim/dram.py's `banked_constants`, in their order. Cycles count from
// `begin`, the start of the frame; see sim/dram.py for what happens when.

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <deque>
#include <vector>

namespace dram {

using i64 = int64_t;
constexpr i64 NEVER = i64{1} << 60, PAST = -(i64{1} << 40);
constexpr i64 BEAT_BYTES = 16, REFRESH_STEPS = 8;

enum Command { ACT, PRE, PRE_ALL, RD, WR, RDA, WRA, REF_ALL, REF_BANK };

struct Field {
    i64 kind, bits;
};

struct Constants {
    i64 bl, cl, cwl, dqsck, rcd, ras, rc, rp, rp_all, ppd, rrd_s, rrd_l, faw, ccd_s, ccd_l, wtr_s,
        wtr_l, rtw, wr, rtp, cs, rfc_all, rfc_bank, refi, pbr2pbr, act_clocks, column_clocks,
        pre_clocks, ref_clocks;
    i64 channels, ranks, rank_bits, bank_bits, access_bits, depth, window, high, low, closed,
        refresh, frontend, backend, outstanding, num, den, hash, field_count;
    Field fields[12];
};

struct Place {
    i64 channel, bank, row;
};

struct Request {
    i64 bank, row, kind, *done;
};

struct Bank {
    i64 row = -1, act_ok = 0, pre_ok = 0, column_ok = 0;
};

struct Group {
    i64 read_ok = 0, write_ok = 0, act_ok = 0;
};

struct Rank {
    i64 read_ok = 0, write_ok = 0, act_ok = 0, pre_ok = 0, refresh_ok = 0;
    i64 acts[4] = {PAST, PAST, PAST, PAST}, oldest_act = 0;
    i64 due = 0, step = 0, open = 0, since = 0, open_clocks = 0;
};

struct Counts {
    i64 activates = 0, precharges = 0, reads = 0, writes = 0, refreshes = 0, bank_refreshes = 0;
    i64 hits[3] = {0, 0, 0};  // row open, bank closed, another row open
};

class Channel {
  public:
    Channel(const Constants& constants, i64 number, FILE* log)
        : p(constants), number_(number), log_(log), banks_per_rank_(i64{1} << p.rank_bits),
          banks_(p.ranks << p.rank_bits), groups_((p.ranks << p.rank_bits) >> p.bank_bits),
          ranks_(p.ranks) {
        for (auto& rank : ranks_) rank.due = p.refresh == 2 ? p.refi / steps() : p.refi;
    }

    bool idle() const { return queue_[0].empty() && queue_[1].empty(); }
    bool full(bool write) const { return static_cast<i64>(queue_[write].size()) >= p.depth; }

    void enqueue(bool write, const Place& place, i64* done) {
        queue_[write].push_back({place.bank, place.row, 0, done});
        turn();
        wake_ = 0;
    }

    // Clock `now`: at most one command.
    void tick(i64 now) {
        if (wake_ > now) return;
        if (bus_ok_ > now) {
            wake_ = bus_ok_;
            return;
        }
        i64 wake = NEVER;
        uint64_t blocked = 0;
        for (i64 r = 0; p.refresh && r < p.ranks; ++r) {
            Rank& rank = ranks_[r];
            if (rank.due > now) {
                wake = std::min(wake, rank.due);
                continue;
            }
            i64 may;
            const bool all = p.refresh == 1;
            for (i64 bank = r * banks_per_rank_ + (all ? 0 : rank.step);
                 bank < (r + 1) * banks_per_rank_; bank += all ? 1 : steps())
                blocked |= uint64_t{1} << bank;
            if (all ? refresh_rank(r, now, may) : refresh_bank(r, now, may)) {
                wake_ = now + 1;
                return;
            }
            wake = std::min(wake, may);
        }
        wake_ = schedule(now, wake, blocked);
    }

    i64 open_clocks(i64 clocks) const {
        i64 total = 0;
        for (const auto& rank : ranks_)
            total += rank.open_clocks + (rank.open ? std::max<i64>(clocks - rank.since, 0) : 0);
        return total;
    }

    Counts counts;

  private:
    i64 steps() const { return std::min(REFRESH_STEPS, banks_per_rank_); }
    Rank& rank_of(i64 bank) { return ranks_[bank >> p.rank_bits]; }
    Group& group_of(i64 bank) { return groups_[bank >> p.bank_bits]; }

    // To writing or back, as the queues say.
    void turn() {
        const i64 reads = static_cast<i64>(queue_[0].size());
        const i64 writes = static_cast<i64>(queue_[1].size());
        if (draining_) draining_ = writes && (writes > p.low || !reads);
        else draining_ = writes >= p.high || (!reads && writes);
    }

    void note(i64 now, Command command, i64 bank, i64 row) {
        if (!log_) return;
        const i64 record[5] = {now, number_, command, bank, row};
        fwrite(record, sizeof record, 1, log_);
    }

    void close(Rank& rank, i64 now) {
        ++counts.precharges;
        if (--rank.open == 0) rank.open_clocks += now - rank.since;
    }

    // The next wake-up behind a command, or behind having found none that may go.
    i64 schedule(i64 now, i64 wake, uint64_t blocked) {
        const bool write = draining_;
        auto& queue = queue_[write];
        const size_t window = std::min(queue.size(), static_cast<size_t>(p.window));
        uint64_t wanted = 0;
        for (size_t k = 0; k < window; ++k) {
            const Request& request = queue[k];
            const Bank& bank = banks_[request.bank];
            if (bank.row != request.row || blocked >> request.bank & 1) continue;
            const Group& group = group_of(request.bank);
            const Rank& rank = rank_of(request.bank);
            const i64 may = std::max({bank.column_ok, write ? group.write_ok : group.read_ok,
                                      write ? rank.write_ok : rank.read_ok});
            if (may <= now) {
                access(k, write, now);
                return now + 1;
            }
            wanted |= uint64_t{1} << request.bank;
            wake = std::min(wake, may);
        }
        uint64_t seen = blocked;
        for (size_t k = 0; k < window; ++k) {
            Request& request = queue[k];
            if (seen >> request.bank & 1) continue;
            const Bank& bank = banks_[request.bank];
            const Rank& rank = rank_of(request.bank);
            if (bank.row < 0) {
                seen |= uint64_t{1} << request.bank;
                const i64 may = std::max({bank.act_ok, group_of(request.bank).act_ok, rank.act_ok,
                                          rank.acts[rank.oldest_act] + p.faw});
                if (may <= now) {
                    request.kind = std::max<i64>(request.kind, 1);
                    activate(request.bank, request.row, now);
                    return now + 1;
                }
                wake = std::min(wake, may);
            } else if (!(wanted >> request.bank & 1)) {
                seen |= uint64_t{1} << request.bank;
                const i64 may = std::max(bank.pre_ok, rank.pre_ok);
                if (may <= now) {
                    request.kind = 2;
                    precharge(request.bank, now);
                    return now + 1;
                }
                wake = std::min(wake, may);
            }
        }
        return wake;
    }

    void access(size_t k, bool write, i64 now) {
        auto& queue = queue_[write];
        const Request request = queue[k];
        bool automatic = p.closed;
        for (size_t other = 0; automatic && other < queue.size(); ++other)
            automatic = other == k || queue[other].bank != request.bank ||
                        queue[other].row != request.row;
        ++counts.hits[request.kind];
        if (!write) *request.done = now + p.cl + p.dqsck + p.bl;
        column(request.bank, write, automatic, now);
        queue.erase(queue.begin() + static_cast<std::ptrdiff_t>(k));
        turn();
    }

    void precharge(i64 number, i64 now) {
        Bank& bank = banks_[number];
        bank.row = -1;
        bank.act_ok = std::max(bank.act_ok, now + p.rp);
        rank_of(number).pre_ok = now + p.ppd;
        bus_ok_ = now + p.pre_clocks;
        close(rank_of(number), now);
        note(now, PRE, number, -1);
    }

    void activate(i64 number, i64 row, i64 now) {
        Bank& bank = banks_[number];
        Rank& rank = rank_of(number);
        bank = {row, now + p.rc, now + p.ras, now + p.rcd};
        group_of(number).act_ok = now + p.rrd_l;
        rank.act_ok = std::max(rank.act_ok, now + p.rrd_s);
        rank.acts[rank.oldest_act] = now;
        rank.oldest_act = (rank.oldest_act + 1) & 3;
        if (!rank.open++) rank.since = now;
        ++counts.activates;
        bus_ok_ = now + p.act_clocks;
        note(now, ACT, number, row);
    }

    void column(i64 number, bool write, bool automatic, i64 now) {
        Bank& bank = banks_[number];
        Group& group = group_of(number);
        Rank& rank = rank_of(number);
        if (write) {
            const i64 end = now + p.cwl + p.bl;
            bank.pre_ok = std::max(bank.pre_ok, end + p.wr);
            group.write_ok = now + p.ccd_l;
            group.read_ok = std::max(group.read_ok, end + p.wtr_l);
            rank.write_ok = std::max(rank.write_ok, now + p.ccd_s);
            rank.read_ok = std::max(rank.read_ok, end + p.wtr_s);
            ++counts.writes;
        } else {
            bank.pre_ok = std::max(bank.pre_ok, now + p.rtp);
            group.read_ok = std::max(group.read_ok, now + p.ccd_l);
            rank.read_ok = std::max(rank.read_ok, now + p.ccd_s);
            rank.write_ok = std::max(rank.write_ok, now + p.cl + p.bl - p.cwl + p.rtw);
            ++counts.reads;
        }
        for (auto& other : ranks_) {
            if (&other == &rank) continue;
            const i64 free = now + (write ? p.cwl : p.cl) + p.bl + p.cs;
            other.read_ok = std::max(other.read_ok, free - p.cl);
            other.write_ok = std::max(other.write_ok, free - p.cwl);
        }
        bus_ok_ = now + p.column_clocks;
        note(now, write ? (automatic ? WRA : WR) : (automatic ? RDA : RD), number, bank.row);
        if (automatic) {
            bank.row = -1;
            bank.act_ok = std::max(bank.act_ok, bank.pre_ok + p.rp);
            close(rank, bank.pre_ok);
        }
    }

    // Next step of a refresh that is due: whether a command went, and when one may.
    bool refresh_rank(i64 r, i64 now, i64& may) {
        Rank& rank = ranks_[r];
        const auto first = banks_.begin() + r * banks_per_rank_, last = first + banks_per_rank_;
        if (rank.open) {
            may = rank.pre_ok;
            for (auto bank = first; bank != last; ++bank) may = std::max(may, bank->pre_ok);
            if (may > now) return false;
            for (auto bank = first; bank != last; ++bank) {
                if (bank->row >= 0) {
                    bank->row = -1;
                    close(rank, now);
                }
                bank->act_ok = std::max(bank->act_ok, now + p.rp_all);
            }
            rank.pre_ok = now + p.ppd;
            bus_ok_ = now + p.pre_clocks;
            note(now, PRE_ALL, r * banks_per_rank_, -1);
            return true;
        }
        may = 0;
        for (auto bank = first; bank != last; ++bank) may = std::max(may, bank->act_ok);
        if (may > now) return false;
        for (auto bank = first; bank != last; ++bank) bank->act_ok = now + p.rfc_all;
        rank.due += p.refi;
        ++counts.refreshes;
        bus_ok_ = now + p.ref_clocks;
        note(now, REF_ALL, r * banks_per_rank_, -1);
        return true;
    }

    bool refresh_bank(i64 r, i64 now, i64& may) {
        Rank& rank = ranks_[r];
        const i64 first = r * banks_per_rank_ + rank.step, last = (r + 1) * banks_per_rank_;
        may = std::max(rank.act_ok, rank.refresh_ok);
        for (i64 number = first; number < last; number += steps()) {
            const Bank& bank = banks_[number];
            if (bank.row >= 0) {
                may = std::max(bank.pre_ok, rank.pre_ok);
                if (may > now) return false;
                precharge(number, now);
                return true;
            }
            may = std::max(may, bank.act_ok);
        }
        if (may > now) return false;
        for (i64 number = first; number < last; number += steps())
            banks_[number].act_ok = now + p.rfc_bank;
        rank.act_ok = std::max(rank.act_ok, now + p.rrd_s);
        rank.refresh_ok = now + p.pbr2pbr;
        rank.due += p.refi / steps();
        rank.step = (rank.step + 1) % steps();
        ++counts.bank_refreshes;
        bus_ok_ = now + p.ref_clocks;
        note(now, REF_BANK, first, -1);
        return true;
    }

    Constants p;
    i64 number_;
    FILE* log_;
    i64 bus_ok_ = 0, wake_ = 0, banks_per_rank_;
    bool draining_ = false;
    std::vector<Bank> banks_;
    std::vector<Group> groups_;
    std::vector<Rank> ranks_;
    std::deque<Request> queue_[2];  // reads, writes; oldest first
};

// The port: AXI4 bursts in, in order; cycles of the accelerator.
class Memory {
  public:
    explicit Memory(const Constants& constants) : p(constants) {}

    // The start of a frame: every bank precharged, the first refresh one interval away.
    void begin(FILE* log) {
        channels_.clear();
        for (i64 channel = 0; channel < p.channels; ++channel)
            channels_.emplace_back(p, channel, log);
        reads_.clear();
        writes_.clear();
        responses_.clear();
        next_read_ = 0;
        clock_ = 1;
    }

    bool may_read() const { return static_cast<i64>(reads_.size()) < p.outstanding; }

    void read(i64 cycle, i64 address, i64 beats) {
        const i64 first = address >> p.access_bits;
        const i64 last = (address + BEAT_BYTES * beats - 1) >> p.access_bits;
        reads_.push_back({address, beats, cycle, 0, 0,
                          std::vector<i64>(static_cast<size_t>(last - first + 1), NEVER)});
    }

    // Cycle from which the next beat of read data is there; NEVER if that is not known yet.
    i64 beat_due() const {
        if (reads_.empty()) return NEVER;
        const Read& burst = reads_.front();
        const i64 block = ((burst.address + BEAT_BYTES * burst.beat) >> p.access_bits) -
                          (burst.address >> p.access_bits);
        const i64 ended = burst.done[static_cast<size_t>(block)];
        return ended == NEVER ? NEVER : (ended * p.den + p.num - 1) / p.num + p.backend;
    }

    void take_beat() {
        if (++reads_.front().beat < reads_.front().beats) return;
        reads_.pop_front();
        --next_read_;
    }

    bool may_write() const {
        return static_cast<i64>(writes_.size() + responses_.size()) < p.outstanding;
    }

    void write(i64 address, i64 beats) { writes_.push_back({address, beats, 0}); }

    bool may_write_beat() const {
        if (writes_.empty()) return false;
        const Write& burst = writes_.front();
        return !channels_[locate(burst.address + BEAT_BYTES * burst.beat).channel].full(true);
    }

    void write_beat(i64 cycle) {
        Write& burst = writes_.front();
        const i64 address = burst.address + BEAT_BYTES * burst.beat;
        const bool last = ++burst.beat == burst.beats;
        if (last || (address + BEAT_BYTES) >> p.access_bits != address >> p.access_bits) {
            const Place place = locate(address);
            channels_[place.channel].enqueue(true, place, nullptr);
        }
        if (!last) return;
        writes_.pop_front();
        responses_.push_back(cycle + std::max<i64>(1, p.frontend));
    }

    i64 response_due() const { return responses_.empty() ? NEVER : responses_.front(); }
    void take_response() { responses_.pop_front(); }

    // Behind edge `cycle`: hand on a read request, then clock the channels up to the next edge.
    void advance(i64 cycle) {
        if (next_read_ < reads_.size()) {
            Read& burst = reads_[next_read_];
            if (cycle >= burst.accepted + p.frontend) {
                const i64 block = (burst.address >> p.access_bits) + burst.block;
                const Place place = locate(block << p.access_bits);
                if (!channels_[place.channel].full(false)) {
                    channels_[place.channel].enqueue(false, place,
                                                     &burst.done[static_cast<size_t>(burst.block)]);
                    if (++burst.block == static_cast<i64>(burst.done.size())) ++next_read_;
                }
            }
        }
        for (; clock_ * p.den <= (cycle + 1) * p.num; ++clock_)
            for (auto& channel : channels_) channel.tick(clock_);
    }

    Counts counts() const {
        Counts total;
        for (const auto& channel : channels_) {
            const Counts& each = channel.counts;
            total.activates += each.activates;
            total.precharges += each.precharges;
            total.reads += each.reads;
            total.writes += each.writes;
            total.refreshes += each.refreshes;
            total.bank_refreshes += each.bank_refreshes;
            for (int k = 0; k < 3; ++k) total.hits[k] += each.hits[k];
        }
        return total;
    }

    i64 open_clocks(i64 clocks) const {
        i64 total = 0;
        for (const auto& channel : channels_) total += channel.open_clocks(clocks);
        return total;
    }

    // Clocks that have passed.
    i64 clocks() const { return clock_ - 1; }

    // Whether nothing is on the bus or waits in a queue.
    bool idle() const {
        if (!reads_.empty() || !writes_.empty() || !responses_.empty()) return false;
        return std::all_of(channels_.begin(), channels_.end(),
                           [](const Channel& channel) { return channel.idle(); });
    }

    Place locate(i64 address) const {
        i64 block = address >> p.access_bits;
        i64 value[6] = {}, at[6] = {};
        for (i64 k = 0; k < p.field_count; ++k) {
            const Field& field = p.fields[k];
            value[field.kind] |= (block & ((i64{1} << field.bits) - 1)) << at[field.kind];
            at[field.kind] += field.bits;
            block >>= field.bits;
        }
        i64 channel = value[0], rank = value[1], group = value[2], bank = value[3], row = value[4];
        if (p.hash) {
            group ^= row & ((i64{1} << at[2]) - 1);
            bank ^= row >> at[2] & ((i64{1} << at[3]) - 1);
        }
        return {channel, ((rank << at[2] | group) << at[3]) | bank, row};
    }

  private:
    struct Read {
        i64 address, beats, accepted, block, beat;
        std::vector<i64> done;
    };
    struct Write {
        i64 address, beats, beat;
    };

    Constants p;
    std::deque<Channel> channels_;
    std::deque<Read> reads_;  // in order of acceptance
    size_t next_read_ = 0;    // the first that has requests left to hand on
    std::deque<Write> writes_;
    std::deque<i64> responses_;
    i64 clock_ = 1;
};

}  // namespace dram
