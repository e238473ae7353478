// From uint8 pictures of any sizes to the input of a network, in one launch for a batch: resize, crop, normalise.
//
//   m[l][x] = clip(sum_t w1[x][t] picture[l][from1[x] + t])         along each line l that takes part, in each channel
//   v[y][x] = clip(sum_t w2[y][t] m[from2[y] + t][x])               over lines
//   out[n][c][y][x] = scale[c] v[y][x][c] + shift[c]                (pixel / 255 - mean) / std, rounded twice
//
// Weights are integers of PLACES binary places, and clip rounds to 8 bits: as in Pillow, to the bit, in every build.
// Lines are rows; where a picture is turned they are columns, and x and y change places.
//
// A block makes TALL x WIDE pixels of the output. BAND lines at a time pass through shared memory, a warp making GROUP
// of them at once so that a weight serves them all; what they add to the output is kept in the lanes' sums.
// Floor: what takes part of the picture read, 12 bytes a pixel written; 3 multiply-adds a tap, first for each pixel of
// lines x width, then for each of height x width. Tiles one above the other both make the lines that they share.

#include "pixels.cuh"

constexpr int TALL = LANES == 1 ? 64 : 8, BAND = 32;
static_assert(BAND % GROUP == 0, "a whole group of lines is made at once");
constexpr int PITCH = PIXEL * WIDE + (LANES == 1 ? 0 : 8);  // from line to line in shared memory

DEVICE int tiles(int width, int height) { return (width + WIDE - 1) / WIDE * ((height + TALL - 1) / TALL); }

KERNEL(preprocess, PreprocessParams) {
  SHARED(uint8_t, strip, BAND * PITCH);
  const int each = most(tiles(p.width, p.height), tiles(p.height, p.width));
  for (int task = block(); task < p.N * each; task += blocks()) {
    const PreprocessPicture& picture = p.pictures[task / each];
    const int width = picture.turned ? p.height : p.width, height = picture.turned ? p.width : p.height;
    if (task % each >= tiles(width, height)) continue;
    const int across = (width + WIDE - 1) / WIDE;
    const int left = task % each % across * WIDE, top = task % each / across * TALL;
    const int columns = least(WIDE, width - left), rows = least(TALL, height - top);
    const int taps1 = picture.first_taps, taps2 = picture.second_taps;
    const Lines lines = {picture, picture.first + left, picture.first + width + (size_t)left * taps1, taps1, columns};
    const int* from2 = picture.second + top;
    const int* weights2 = picture.second + height + (size_t)top * taps2;

    const int right = picture.turned ? p.width : 1, down = picture.turned ? 1 : p.width;
    float* out[CHANNELS];
    for (int c = 0; c < CHANNELS; ++c)
      out[c] = p.out + ((size_t)(task / each * CHANNELS + c) * p.height * p.width + (size_t)top * down +
                        (size_t)left * right);

    Vec<int> sums[TALL / WARPS][SLOTS];
    for (int i = 0; i < TALL / WARPS; ++i)
      for (int slot = 0; slot < SLOTS; ++slot) sums[i][slot] = half<Vec<int>>();
    const int end = from2[rows - 1] + taps2;
    for (int line = from2[0]; line < end; line += BAND) {
      const int count = least(BAND, end - line);
      sync();  // those who still read the last lines
      along(lines, line, count, strip, PITCH);
      sync();
      for (int y = warp(); y < rows; y += WARPS) {
        const int first = most(from2[y], line), last = least(from2[y] + taps2, line + count);
        const int* weights = weights2 + (size_t)y * taps2 - from2[y];
        for (int c = 0; c < CHANNELS && first < last; ++c)  // a network's run drives its input out of the cache
          for (int x = 0; x < columns; x += 16) fetch(out[c] + (size_t)y * down + (size_t)x * right);
        Vec<int>* sum = sums[y / WARPS];
        for (int l = first; l < last; ++l)  // a weight serves all slots
          for (int slot = 0; slot < SLOTS; ++slot) sum[slot] += levels(strip + (l - line) * PITCH, slot) * weights[l];
      }
    }

    for (int first = 0; first < rows; first += BAND) {
      const int last = least(first + BAND, rows);
      uint8_t* made = strip - first * PITCH;
      sync();
      for (int y = first + warp(); y < last; y += WARPS) put(made + y * PITCH, sums[y / WARPS]);
      sync();
      for (int y = first + warp(); y < last; y += WARPS)
        for (int c = 0; c < CHANNELS; ++c)
          normalise(out[c] + (size_t)y * down, right, made + y * PITCH, p.reversed ? CHANNELS - 1 - c : c, columns,
                    p.affine[c], p.affine[CHANNELS + c]);
    }
  }
}
