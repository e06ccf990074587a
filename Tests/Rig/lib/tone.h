// The tone that tone.c judges, as samples: for it and for whatever else makes the tone.
#include <math.h>
#include <stdint.h>

enum { tone_rate = 48000, tone_period = 109, tone_amplitude = 16000 };

static inline double tone_step(void) { return 2 * M_PI / tone_period; }
static inline int16_t tone_sample(long number) {
    return (int16_t)lrint(tone_amplitude * sin(tone_step() * (double)(number % tone_period)));
}
