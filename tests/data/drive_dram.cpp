// Bursts through the port of verification/dram.h, for tests/test_dram_twin.py:
//
//     drive_dram INPUT LOG
//
// INPUT: the constants, then the number of bursts, then for each one the cycle from which it is
// offered, 1 for a write, address and beats. LOG gets the commands; standard output the cycles of
// the read beats and of the responses.

#include "dram.h"

#include <cstring>
#include <fstream>

int main(int, char** argv) {
    using dram::i64;
    std::ifstream input(argv[1]);
    std::vector<i64> values(sizeof(dram::Constants) / sizeof(i64));
    for (auto& value : values) input >> value;
    dram::Constants constants;
    memcpy(&constants, values.data(), sizeof constants);
    struct Burst {
        i64 cycle, write, address, beats;
    };
    i64 count;
    input >> count;
    std::deque<Burst> reads, writes;
    for (i64 k = 0; k < count; ++k) {
        Burst burst;
        input >> burst.cycle >> burst.write >> burst.address >> burst.beats;
        (burst.write ? writes : reads).push_back(burst);
    }
    FILE* log = fopen(argv[2], "wb");
    dram::Memory memory(constants);
    memory.begin(log);
    i64 left = count;
    for (auto& burst : reads) left += burst.beats - 1;
    for (i64 now = 1; left; ++now) {
        const bool may_read = memory.may_read(), may_write = memory.may_write();
        const bool may_write_beat = memory.may_write_beat();
        const bool beat = memory.beat_due() <= now, response = memory.response_due() <= now;
        if (may_read && !reads.empty() && reads.front().cycle <= now) {
            memory.read(now, reads.front().address, reads.front().beats);
            reads.pop_front();
        }
        if (beat) {
            memory.take_beat();
            printf("R %lld\n", static_cast<long long>(now));
            --left;
        }
        if (may_write && !writes.empty() && writes.front().cycle <= now) {
            memory.write(writes.front().address, writes.front().beats);
            writes.pop_front();
        }
        if (may_write_beat) memory.write_beat(now);
        if (response) {
            memory.take_response();
            printf("B %lld\n", static_cast<long long>(now));
            --left;
        }
        memory.advance(now);
    }
    fclose(log);
    return 0;
}
