// Weighted sums of pixels along lines, the inner loop of a resize. A pixel is three bytes, one a channel.
#pragma once

#include "simt.cuh"

constexpr int CHANNELS = 3, PLACES = 22;
constexpr int WIDE = 32;  // columns that are made at once

DEVICE int least(int a, int b) { return a < b ? a : b; }
DEVICE int most(int a, int b) { return a > b ? a : b; }

// Sums of 8-bit numbers times weights begin with a half, so that what is left without the places is rounded.
template <typename V> DEVICE V half() { return V{} + (1 << (PLACES - 1)); }
template <typename V> DEVICE V clipped(V sum) {
  const V value = sum >> PLACES, none = {}, all = none + 255;
  return value < none ? none : value > all ? all : value;
}

// level * scale + shift in two roundings, as NumPy does it: what lies in between keeps compilers from fusing them.
template <typename V> DEVICE V normal(V level, float scale, float shift) {
  const V product = level * scale, lowest = V{} - 3.402823466e38f;
  return (product < lowest ? lowest : product) + shift;
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
constexpr int GROUP = 4;  // lines that share a weight
constexpr int PIXEL = CHANNELS, SLOTS = CHANNELS;  // bytes of a pixel that was made; sums of a lane in a line of WIDE

// to[l][x][c] = clip(sum_t weights[x][t] picture[line + l][from[x] + t][c]) for `count` lines. A warp makes GROUP
// lines, a lane a channel of a column of them.
DEVICE void along(const Lines& lines, int line, int count, uint8_t* to, int pitch) {
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
        if (l + i < count) to[(l + i) * pitch + e] = (uint8_t)clipped(sums[i]);
    }
}

// What a lane has of a line that was made, and the like of it from its sums.
DEVICE int levels(const uint8_t* line, int slot) { return line[slot * WARP + warp_lane()]; }
DEVICE void put(uint8_t* line, const int* sums) {
  for (int slot = 0; slot < SLOTS; ++slot) line[slot * WARP + warp_lane()] = (uint8_t)clipped(sums[slot]);
}

// to[x * apart] = normal(channel c of pixel x of a line that was made)
DEVICE void normalise(float* to, int apart, const uint8_t* line, int c, int columns, float scale, float shift) {
  for (int x = warp_lane(); x < columns; x += WARP)
    to[(size_t)x * apart] = normal((float)line[x * PIXEL + c], scale, shift);
}
#else
constexpr int GROUP = VEC<int>;  // lines in a vector
constexpr int SPAN = 512;        // pixels of a line that are at hand at once; with GROUP lines half the nearest cache
constexpr int PIXEL = 4, SLOTS = CHANNELS * WIDE / VEC<int>;

DEVICE Vec<int> packed(const Vec<int>* sums) {
  return clipped(sums[0]) | clipped(sums[1]) << 8 | clipped(sums[2]) << 16;
}

// Lays four words of four lines across: to[j][i] = line_i[j].
DEVICE void turn(const void* a, const void* b, const void* c, const void* d, void* to, size_t pitch) {
  typedef uint32_t Four __attribute__((vector_size(16)));
  const void* lines[4] = {a, b, c, d};
  Four rows[4];
  for (int i = 0; i < 4; ++i) __builtin_memcpy(rows + i, lines[i], sizeof(Four));
  for (int twice = 0; twice < 2; ++twice) {
    const Four even[2] = {rows[0], rows[1]}, odd[2] = {rows[2], rows[3]};
    for (int i = 0; i < 2; ++i) {
      rows[2 * i] = __builtin_shuffle(even[i], odd[i], Four{0, 4, 1, 5});
      rows[2 * i + 1] = __builtin_shuffle(even[i], odd[i], Four{2, 6, 3, 7});
    }
  }
  for (int j = 0; j < 4; ++j) __builtin_memcpy((char*)to + j * pitch, rows + j, sizeof(Four));
}

// The same, up to a whole GROUP of lines and of four columns. Lines are first laid side by side, four bytes a pixel:
// then all that is summed is vectors.
DEVICE void along(const Lines& lines, int line, int count, uint8_t* to, int pitch) {
  const PreprocessPicture& picture = lines.picture;
  const int *from = lines.from, taps = lines.taps;
  alignas(64) uint32_t words[SPAN][GROUP];
  alignas(64) int made[WIDE][GROUP];
  for (int l = 0; l < count; l += GROUP) {
    for (int x = 0, next; x < lines.columns; x = next) {
      for (next = x + 1; next < lines.columns && from[next] + taps - from[x] <= SPAN;) ++next;
      Vec<int> sums[CHANNELS] = {};
      // One piece; only a column that takes more than SPAN pixels comes alone, and in several.
      for (int piece = 0; piece < taps; piece += SPAN) {
        const int first = from[x] + piece, size = least(SPAN, from[next - 1] + taps - first);
        const uint8_t* side[GROUP];
        for (int i = 0; i < GROUP; ++i) side[i] = lines.pixel(line + least(l + i, count - 1), first);
        const int whole = size - (first + size == picture.length);  // behind the last there may be no fourth byte
        int k = 0;
        size_t at = 0;
        for (; picture.pixel_bytes == 4 && k + 4 <= whole; k += 4, at += 16)
          for (int i = 0; i < GROUP; i += 4)
            turn(side[i] + at, side[i + 1] + at, side[i + 2] + at, side[i + 3] + at, words[k] + i, sizeof words[k]);
        for (; k < whole; ++k, at += picture.pixel_bytes)
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
          store<int>(made[column], packed(sums));
        }
      }
    }
    for (int x = 0; x < lines.columns; x += 4)
      for (int i = 0; i < GROUP; i += 4)
        turn(made[x] + i, made[x + 1] + i, made[x + 2] + i, made[x + 3] + i, to + (l + i) * pitch + x * PIXEL, pitch);
  }
}

// A slot is one channel of as many pixels as a vector has.
DEVICE Vec<int> levels(const uint8_t* line, int slot) {
  return load<int>((const int*)line + slot / CHANNELS * VEC<int>) >> 8 * (slot % CHANNELS) & 255;
}
DEVICE void put(uint8_t* line, const Vec<int>* sums) {
  for (int i = 0; i < SLOTS / CHANNELS; ++i) store((int*)line + i * VEC<int>, packed(sums + i * CHANNELS));
}

DEVICE void normalise(float* to, int apart, const uint8_t* line, int c, int columns, float scale, float shift) {
  for (int x = 0; x < columns; x += VEC<int>) {
    const Vec<int> level = levels(line, x / VEC<int> * CHANNELS + c);
    const Vec<float> made = normal(__builtin_convertvector(level, Vec<float>), scale, shift);
    if (apart == 1 && x + VEC<int> <= columns) {
      store<float>(to + x, made);
    } else {
      float each[VEC<int>];
      store<float>(each, made);
      for (int i = 0; i < least(VEC<int>, columns - x); ++i) to[(size_t)(x + i) * apart] = each[i];
    }
  }
}
#endif
