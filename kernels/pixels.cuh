// Weighted sums of pixels along lines, the inner loop of a resize. A pixel is three bytes, one a channel.
#pragma once

#include "simt.cuh"

constexpr int CHANNELS = 3, PLACES = 22;

DEVICE int least(int a, int b) { return a < b ? a : b; }
DEVICE int most(int a, int b) { return a > b ? a : b; }

// Sums of 8-bit numbers times weights begin with a half, so that what is left without the places is rounded.
template <typename V> DEVICE V half() { return V{} + (1 << (PLACES - 1)); }
template <typename V> DEVICE V clipped(V sum) {
  const V value = sum >> PLACES, none = {}, all = none + 255;
  return value < none ? none : value > all ? all : value;
}

// Lines of a picture, and the columns that are made of them: each of the `taps` pixels from[x] on, times its weights.
struct Lines {
  const PreprocessPicture& picture;
  const int *from, *weights;
  int taps, columns;

  DEVICE_MEMBER const uint8_t* pixel(int line, int at) const {
    return picture.pixels + (size_t)line * picture.line_bytes + (size_t)at * picture.pixel_bytes;
  }
};

#if defined(__CUDACC__) || defined(FIELDSHOT_CHECK)
typedef uint8_t Level;
constexpr int GROUP = 4;  // lines that share a weight

// to[l][x][c] = clip(sum_t weights[x][t] picture[line + l][from[x] + t][c]) for `count` lines. A warp makes GROUP
// lines, a lane a channel of a column of them.
DEVICE void along(const Lines& lines, int line, int count, Level* to, int pitch) {
  const int step = lines.picture.pixel_bytes;
  for (int l = warp() * GROUP; l < count; l += WARPS * GROUP)
    for (int e = warp_lane(); e < lines.columns * CHANNELS; e += WARP) {
      const int x = e / CHANNELS;
      const int* weights = lines.weights + (size_t)x * lines.taps;
      const uint8_t* pixels[GROUP];
      int sums[GROUP];
      for (int i = 0; i < GROUP; ++i) {
        pixels[i] = lines.pixel(line + least(l + i, count - 1), lines.from[x]) + e % CHANNELS;
        sums[i] = half<int>();
      }
#pragma unroll 2  // by four, as nvcc would, registers leave room for one block a multiprocessor on sm_100 to sm_120
      for (int t = 0; t < lines.taps; ++t)
        for (int i = 0; i < GROUP; ++i) sums[i] += weights[t] * pixels[i][(size_t)t * step];
      for (int i = 0; i < GROUP; ++i)
        if (l + i < count) to[(l + i) * pitch + e] = (Level)clipped(sums[i]);
    }
}
#else
typedef int Level;
constexpr int GROUP = VEC<int>;  // lines in a vector
constexpr int SPAN = 512;        // pixels of a line that are at hand at once; with GROUP lines half the nearest cache

// The same, up to a whole GROUP of lines. They are first laid side by side, four bytes a pixel: then all that is summed
// is vectors.
DEVICE void along(const Lines& lines, int line, int count, Level* to, int pitch) {
  const PreprocessPicture& picture = lines.picture;
  const int *from = lines.from, taps = lines.taps;
  alignas(64) uint32_t words[SPAN][GROUP];
  for (int l = 0; l < count; l += GROUP)
    for (int x = 0, next; x < lines.columns; x = next) {
      for (next = x + 1; next < lines.columns && from[next] + taps - from[x] <= SPAN;) ++next;
      Vec<int> sums[CHANNELS] = {};
      // One piece; only a column that takes more than SPAN pixels comes alone, and in several.
      for (int piece = 0; piece < taps; piece += SPAN) {
        const int first = from[x] + piece, size = least(SPAN, from[next - 1] + taps - first);
        const uint8_t* side[GROUP];
        for (int i = 0; i < GROUP; ++i) side[i] = lines.pixel(line + least(l + i, count - 1), first);
        const int whole = size - (first + size == picture.length);  // behind the last there may be no fourth byte
        size_t at = 0;
        for (int k = 0; k < whole; ++k, at += picture.pixel_bytes)
          for (int i = 0; i < GROUP; ++i) __builtin_memcpy(words[k] + i, side[i] + at, 4);
        for (int i = 0; i < GROUP && whole < size; ++i)
          words[whole][i] = side[i][at] | side[i][at + 1] << 8 | side[i][at + 2] << 16;
        for (int column = x; column < next; ++column) {
          if (piece == 0)
            for (auto& sum : sums) sum = half<Vec<int>>();
          const int* weights = lines.weights + (size_t)column * taps + piece;
          const uint32_t(*pixels)[GROUP] = words + (from[column] - from[x]);
          for (int t = 0; t < least(SPAN, taps - piece); ++t) {
            const Vec<int> four = load<int>((const int*)pixels[t]);
            for (int c = 0; c < CHANNELS; ++c) sums[c] += (four >> 8 * c & 255) * weights[t];
          }
          if (piece + SPAN < taps) continue;
          Level* place = to + l * pitch + column * CHANNELS;
          for (int c = 0; c < CHANNELS; ++c) {
            int out[GROUP];
            store<int>(out, clipped(sums[c]));
            for (int i = 0; i < GROUP; ++i) place[i * pitch + c] = out[i];
          }
        }
      }
    }
}
#endif
