// A tone that shows what happened to it on its way: written as raw samples, and looked for in a recording.
//
//   tone make SECONDS        16-bit stereo at 48 kHz to standard output
//   tone check FILE [SKIP]   prints "MILLISECONDS GAPS LONGEST": how long the tone sounds, where it is broken, and the longest silence
//                            inside it in milliseconds; SKIP bytes of the file are no samples (a wav file's header: 44)
//
// A sine of 109 samples: no number of 1 ms packets below 109 is a whole number of its periods, so a packet that is lost, twice
// there or in the wrong place breaks it. Of an unbroken sine each sample follows from the two before it, whatever its volume:
// x[n+1] = 2 cos(w) x[n] - x[n-1].
#include "tone.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { rate = tone_rate, period = tone_period };

static int make(double seconds) {
    long total = (long)(seconds * rate);
    for (long sample = 0; sample < total; sample++) {
        int16_t frame[2] = {tone_sample(sample), tone_sample(sample)};
        if (fwrite(frame, sizeof frame, 1, stdout) != 1) return 1;
    }
    return fflush(stdout) != 0;
}

static int check(const char *name, long skip) {
    FILE *file = fopen(name, "rb");
    if (file == NULL || fseek(file, skip, SEEK_SET) != 0) {
        perror(name);
        return 1;
    }
    const double factor = 2 * cos(tone_step());
    // Rounding of the samples, doubled by the formula, and of the emulator's volume.
    const double tolerance = 12;
    long position = 0, first = -1, last = -1, broken = -period, gaps = 0, silence = 0, longest = 0;
    double before = 0, previous = 0;
    int16_t frame[2];
    while (fread(frame, sizeof frame, 1, file) == 1) {
        double value = frame[0];
        if (abs(frame[0]) > 2) {
            if (first < 0) first = position;
            last = position;
            if (silence > longest) longest = silence;
            silence = 0;
        } else if (first >= 0) {
            silence++;
        }
        // The tone's beginning is a step; its end is one as well, and is taken back below.
        if (first >= 0 && position > first + 2 && fabs(factor * previous - before - value) > tolerance &&
            position - broken >= period / 2) {
            broken = position;
            gaps++;
        }
        before = previous;
        previous = value;
        position++;
    }
    fclose(file);
    // What breaks at the last sample that sounds, or after it, is the tone's end.
    if (gaps > 0 && broken >= last) gaps--;
    printf("%ld %ld %ld\n", first < 0 ? 0 : (last - first + 1) * 1000 / rate, gaps, longest * 1000 / rate);
    return 0;
}

int main(int count, char **words) {
    if (count == 3 && strcmp(words[1], "make") == 0) return make(atof(words[2]));
    if (count >= 3 && strcmp(words[1], "check") == 0) return check(words[2], count > 3 ? atol(words[3]) : 0);
    fprintf(stderr, "usage: tone make SECONDS | tone check FILE [SKIP]\n");
    return 2;
}
