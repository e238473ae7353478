// Sums of pixels times weights, the inner loop of a resize. A pixel is three bytes, one a channel.
#pragma once

#include "simt.cuh"

constexpr int CHANNELS = 3, PLACES = 22;

// Sums of weighted 8-bit numbers begin with a half, so that shifting the places out rounds them.
template <typename V> DEVICE V rounded_start() { return V{} + (1 << (PLACES - 1)); }
template <typename V> DEVICE V clipped(V sum) {
  V value = sum >> PLACES;
  value = value < 0 ? V{} : value;
  return value > 255 ? V{} + 255 : value;
}

// What is summed of a pixel at once: on the host all its channels, on GROUP lines; on a GPU one channel, on GROUP lines.
#if defined(__CUDACC__) || defined(FIELDSHOT_CHECK)
constexpr int GROUP = 4, PARTS = CHANNELS;

DEVICE void store_bytes(uint8_t* to, int value) { *to = (uint8_t)value; }

// to[i * pitch] = clip(sum_t weights[t] lines[i][t * step]), i < GROUP, t < taps.
DEVICE void along(const uint8_t* const (&lines)[GROUP], int step, bool, const int* weights, int taps, uint8_t* to,
                  int pitch) {
  int sums[GROUP];
  for (int i = 0; i < GROUP; ++i) sums[i] = rounded_start<int>();
  for (int t = 0; t < taps; ++t) {
    const int weight = weights[t];
    for (int i = 0; i < GROUP; ++i) sums[i] += weight * lines[i][(size_t)t * step];
  }
  for (int i = 0; i < GROUP; ++i) to[i * pitch] = (uint8_t)clipped(sums[i]);
}
#else
// A vector holds as many pixels as go into it, with a fourth number each that is not used.
constexpr int PIXELS = VEC<int> / 4, VECTORS = 2, GROUP = VECTORS * PIXELS, PARTS = 1;
typedef uint8_t Bytes __attribute__((vector_size(VEC<int>)));

DEVICE void store_bytes(uint8_t* to, Vec<int> values) {
  const Bytes bytes = __builtin_convertvector(values, Bytes);
  __builtin_memcpy(to, &bytes, sizeof bytes);
}

// A pixel in four bytes. Where the picture ends there may be but three.
DEVICE uint32_t pixel_at(const uint8_t* from, bool last) {
  uint32_t pixel;
  if (last) return from[0] | from[1] << 8 | from[2] << 16;
  __builtin_memcpy(&pixel, from, sizeof pixel);
  return pixel;
}

// As on a GPU, for all channels; writes a fourth byte, to be written over. `last`: a line may end where the memory does.
DEVICE void along(const uint8_t* const (&lines)[GROUP], int step, bool last, const int* weights, int taps, uint8_t* to,
                  int pitch) {
  Vec<int> sums[VECTORS];
  for (int i = 0; i < VECTORS; ++i) sums[i] = rounded_start<Vec<int>>();
  for (int t = 0; t < taps; ++t)
    for (int i = 0; i < VECTORS; ++i) {
      typedef uint32_t Words __attribute__((vector_size(VEC<int>)));
      Words words;
      for (int j = 0; j < PIXELS; ++j) words[j] = pixel_at(lines[i * PIXELS + j] + (size_t)t * step, last);
      sums[i] += __builtin_convertvector((Bytes)words, Vec<int>) * weights[t];
    }
  for (int i = 0; i < VECTORS; ++i) {
    const Bytes bytes = __builtin_convertvector(clipped(sums[i]), Bytes);
    for (int j = 0; j < PIXELS; ++j) __builtin_memcpy(to + (i * PIXELS + j) * pitch, (const char*)&bytes + 4 * j, 4);
  }
}
#endif
