// The second moment of samples, the statistic that grows with nothing but D.
//
//   moment = before + U^T U                 U (N, D) float32 -> (D, D) float64, before (D, D) or null
//
// `moment`: a block makes one 64 x 64 tile of the lower triangle over one slice of the samples; a lane keeps 4 x 4
// numbers. Products are added in float32 over 512 samples, those sums in float64. `moment_reduce`
// adds the slices, in order, and mirrors the triangle. A single slice may lie in the moment itself. The Gram matrix of
// residuals is the moment of their transpose, which `residuals` (centre.cu) leaves in panels; the columns of offsets that
// lie there too give rows below it: their products with the residuals.
// Floor: N D floats read, N D^2 / 2 float32 operations.

#include "tile.cuh"

constexpr int FLUSH = 512;  // samples whose products are added in float32

KERNEL(moment, MomentParams) {
  SHARED(float, left, DEPTH* TILE);
  SHARED(float, right, DEPTH* TILE);
  const int down = (p.rows + TILE - 1) / TILE, tiles = down * (down + 1) / 2;
  for (int task = block(); task < tiles * p.slices; task += blocks()) {
    int row, column;
    triangle(task % tiles, &row, &column);
    const int slice = task / tiles, size = (p.N + p.slices - 1) / p.slices;
    const int begin = slice * size, stop = begin + size < p.N ? begin + size : p.N;
    const float *above = p.U + (size_t)row * p.apart, *beside = p.U + (size_t)column * p.apart;
    const int height = p.rows - row * TILE, width = p.D - column * TILE;
    const Place to = {p.partial + ((size_t)slice * p.D + row * TILE) * p.D + column * TILE, (size_t)p.D, height, width,
                      (row - column) * TILE};
    Tile<float> tile;
    for (int from = begin;; from += DEPTH) {
      const bool end = from + DEPTH >= stop;
      const int depth = !end ? DEPTH : stop > from ? stop - from : 0;
      sync();  // those who still read the last panels
      const float* A = staged(left, above + (size_t)from * p.stride, p.stride, depth, height);
      const float* B = row == column ? A : staged(right, beside + (size_t)from * p.stride, p.stride, depth, width);
      sync();
      const int since = (from - begin) % FLUSH;
      tile.add(A, B, depth, to, 1, from < begin + FLUSH, since == 0, end || since == FLUSH - DEPTH);
      if (end) break;
    }
  }
}

KERNEL(moment_reduce, MomentParams) {
  constexpr int ROWS = STRIP<double>;
  for (int row = (block() * WARPS + warp()) * ROWS; row < p.D; row += blocks() * WARPS * ROWS) {
    const int end = row + ROWS < p.D ? row + ROWS : p.D;
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
