// The second moment of samples, the statistic that grows with nothing but D.
//
//   moment = before + U^T U                 U (N, D) float32 -> (D, D) float64, before (D, D) or null
//
// `moment`: a block makes one 64 x 64 tile of the lower triangle over one slice of the samples; a lane keeps 4 x 4
// numbers. Products are added in float32 over 512 samples, those sums in float64. `moment_reduce` adds the slices, in
// order, and mirrors the triangle. A single slice may lie in the moment itself.
// Floor: N D floats read, N D^2 / 2 float32 operations.

#include "tile.cuh"

constexpr int FLUSH = 512;
constexpr int STRIP = 8;  // rows that a warp mirrors at once: to the other triangle they are a cache line

KERNEL(moment, MomentParams) {
  SHARED(float, left, DEPTH<float>* TILE);
  SHARED(float, right, DEPTH<float>* TILE);
  const int across = (p.D + TILE - 1) / TILE, tiles = across * (across + 1) / 2;
  for (int task = block(); task < tiles * p.slices; task += blocks()) {
    int row, column;
    triangle(task % tiles, &row, &column);
    row *= TILE, column *= TILE;
    const int slice = task / tiles, size = (p.N + p.slices - 1) / p.slices;
    const int end = (slice + 1) * size < p.N ? (slice + 1) * size : p.N;
    double* out = p.partial + (size_t)slice * p.D * p.D;
    for (int start = slice * size;; start += FLUSH) {
      const bool more = start < end;
      const int stop = start + FLUSH < end ? start + FLUSH : end;
      Tile<float> tile;
      for (int from = start; from < stop; from += DEPTH<float>) {
        const int depth = from + DEPTH<float> < stop ? DEPTH<float> : stop - from;
        sync();  // those who still read the last panels
        stage(left, p.U + (size_t)from * p.D, p.D, depth, row, p.D);
        if (row != column) stage(right, p.U + (size_t)from * p.D, p.D, depth, column, p.D);
        sync();
        tile.add(left, row == column ? left : right, depth, row == column);
      }
      const bool fresh = start == slice * size;
      tile.each([&](int i, int j, float value) {
        if (row + i < p.D && column + j <= row + i) {
          double* to = out + (size_t)(row + i) * p.D + column + j;
          *to = (fresh ? 0 : *to) + value;
        }
      });
      if (!more || stop == end) break;
    }
  }
}

KERNEL(moment_reduce, MomentParams) {
  for (int row = (block() * WARPS + warp()) * STRIP; row < p.D; row += blocks() * WARPS * STRIP) {
    const int end = row + STRIP < p.D ? row + STRIP : p.D;
    for (int i = row; i < end; ++i) {
      double* out = p.moment + (size_t)i * p.D;
      const double* before = p.before ? p.before + (size_t)i * p.D : nullptr;
      for (int slice = 0; slice < p.slices; ++slice) {
        const double* part = p.partial + ((size_t)slice * p.D + i) * p.D;
        const double* sum = slice ? out : before;
        if (sum)
          for (int j = warp_lane(); j <= i; j += WARP) out[j] = sum[j] + part[j];
        else if (part != out)
          for (int j = warp_lane(); j <= i; j += WARP) out[j] = part[j];
      }
    }
    for (int j = warp_lane(); j < end; j += WARP)  // each lane what it wrote itself
      for (int i = row > j ? row : j; i < end; ++i) p.moment[(size_t)j * p.D + i] = p.moment[(size_t)i * p.D + j];
  }
}
