// From statistics to what the solution is made of.
//
//   `centre`     means mu_k = sums_k / counts_k, their common centre m, offsets a_k = mu_k - m        (K, D), (D)
//                and pulls s_k (pull.cuh)                                                             (K)
//   `residuals`  r_i = u_i - mu_k(i) + s_k a_k(i), squares |u_i|^2; prototypes mu_k / |mu_k|       (M, D), (M), (K, D)
//                and residuals and offsets again in panels (tile.cuh), as columns
//
// `centre`: a block a chunk of dimensions. `residuals`: a warp STRIP rows, of samples first, then of classes.

#include "pull.cuh"
#include "tile.cuh"

KERNEL(centre, CentreParams) {
  if (block() == 0)
    for (int k = lane(); k < p.K; k += LANES) p.pulls[k] = pulled(p.counts[k], p.pull);
  for (int chunk = block(); chunk < chunks<double>(p.D); chunk += blocks()) {
    combine<double>(chunk, p.D, p.sums, p.D, 0, p.K, [&](int, int k) { return 1 / (p.K * p.counts[k]); },
                    [&](int, int d, double sum) { p.centre[d] = sum; });
    // The same lane on, for its own dimensions.
    const int from = chunk * CHUNK<double>, to = from + CHUNK<double> < p.D ? from + CHUNK<double> : p.D;
    for (int k = 0; k < p.K; ++k) {
      const size_t row = (size_t)k * p.D;
      const double weight = 1 / p.counts[k];
      for (int d = from + lane(); d < to; d += LANES) {
        const double mean = p.sums[row + d] * weight;
        p.means[row + d] = (float)mean;
        p.offsets[row + d] = (float)(mean - p.centre[d]);
      }
    }
  }
}

KERNEL(residuals, CentreParams) {
  constexpr int ROWS = STRIP<float>;
  for (int first = (block() * WARPS + warp()) * ROWS; first < p.M + p.K; first += blocks() * WARPS * ROWS) {
    const int end = first + ROWS < p.M + p.K ? first + ROWS : p.M + p.K;
    for (int i = first; i < end; ++i) {
      const bool sample = i < p.M;
      const float* row = sample ? p.U + (size_t)i * p.D : p.means + (size_t)(i - p.M) * p.D;
      double square = 0;
      for (int d = warp_lane(); d < p.D; d += WARP) square += (double)row[d] * row[d];
      square = warp_sum(square);
      if (sample) {
        if (warp_lane() == 0) p.squares[i] = square;
        const int own = p.index[i];
        const float *mean = p.means + (size_t)own * p.D, *offset = p.offsets + (size_t)own * p.D;
        const float pull = (float)p.pulls[own];
        for (int d = warp_lane(); d < p.D; d += WARP)
          p.residuals[(size_t)i * p.D + d] = row[d] - mean[d] + pull * offset[d];
      } else {
        const float unit = square > 0 ? (float)(1 / sqrt(square)) : 0;
        for (int d = warp_lane(); d < p.D; d += WARP) p.prototypes[(size_t)(i - p.M) * p.D + d] = unit * row[d];
      }
    }
    if (p.panels)
      turn(p.residuals + (size_t)first * p.D, p.D, end - first, p.D,
           p.panels + (size_t)(first / TILE) * p.D * TILE + first % TILE);
  }
}
