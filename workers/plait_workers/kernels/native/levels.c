// Which of the levels that are compiled in this processor and its system can run.
#define EXPORTED __attribute__((visibility("default")))

#if defined(__x86_64__)
#include <cpuid.h>

static unsigned long long enabled_states(void) {
    unsigned low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (unsigned long long)high << 32 | low;
}

// 4 for x86-64-v4 (AVX-512 F, BW, CD, DQ, VL; 512-bit registers saved by the system), 3 for v3 (AVX2, BMI, FMA;
// 256-bit registers saved), 2 for v2, 1 for less.
EXPORTED int plait_level(void) {
    unsigned a, b, c, d, b7, c81 = 0, unused;
    const unsigned sse = bit_SSSE3 | bit_SSE4_1 | bit_SSE4_2 | bit_POPCNT | bit_CMPXCHG16B;
    const unsigned avx = bit_OSXSAVE | bit_AVX | bit_FMA | bit_F16C | bit_MOVBE;
    const unsigned seven = bit_AVX2 | bit_BMI | bit_BMI2;
    const unsigned wide = bit_AVX512F | bit_AVX512BW | bit_AVX512CD | bit_AVX512DQ | bit_AVX512VL;
    if (!__get_cpuid(1, &a, &b, &c, &d) || (c & sse) != sse) return 1;
    if ((c & avx) != avx || (enabled_states() & 0x6) != 0x6) return 2;
    if (!__get_cpuid_count(7, 0, &a, &b7, &unused, &d)) return 2;
    if (!__get_cpuid(0x80000001, &a, &b, &c81, &d)) return 2;
    if ((b7 & seven) != seven || !(c81 & bit_LZCNT)) return 2;
    return (b7 & wide) == wide && (enabled_states() & 0xE6) == 0xE6 ? 4 : 3;
}
#else
EXPORTED int plait_level(void) { return 0; }
#endif
