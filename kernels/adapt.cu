// Unlabelled samples pull the class means: all steps of an expectation maximisation in one launch of one block.
//
//   mu_k   = (sums_k + weight sum_q share q) / (counts_k + weight sum_q share)
//   W_k    = scale g_k H^-1 (mu_k - m),   b as in solution.cu,  the covariance held
//   share  = softmax(temperature (W q + b))            of each query q among the classes; given at the start      (M, K)
//
// H^-1 is given: D x D, or N x N in the dual case, where A H^-1 = (A - (A R^T) H^-1 R) / ridge (Woodbury).
// Floor: 2 M K D operations a step, and K D^2 or 2 K N D + K N^2.

#include "linear.cuh"

KERNEL(adapt, AdaptParams) {
  const int M = p.M, N = p.N, D = p.D, K = p.K;
  for (int step = 0; step < p.steps; ++step) {
    for (int k = warp(); k < K; k += WARPS) {
      double sum = 0;
      for (int i = warp_lane(); i < M; i += WARP) sum += p.share[(size_t)i * K + k];
      sum = warp_sum(sum);
      if (warp_lane() == 0) p.soft_counts[k] = p.counts[k] + p.weight * sum;
    }
    sync();
    for (int k = 0; k < K; ++k)
      for (int chunk = 0; chunk < chunks<float>(D); ++chunk)
        combine<float>(chunk, D, p.queries, D, 0, M,
                       [&](int, int i) { return (float)(p.weight * p.share[(size_t)i * K + k]); },
                       [&](int, int d, float sum) {
                         p.means[(size_t)k * D + d] =
                             (float)((p.sums[(size_t)k * D + d] + sum) / p.soft_counts[k]);
                       });
    sync();
    for (int d = lane(); d < D; d += LANES) {
      double sum = 0;
      for (int k = 0; k < K; ++k) sum += p.means[(size_t)k * D + d];
      p.centre[d] = sum / K;
      for (int k = 0; k < K; ++k) p.offsets[(size_t)k * D + d] = (float)(p.means[(size_t)k * D + d] - p.centre[d]);
    }
    sync();
    if (p.residuals) {
      product(p.offsets, p.residuals, K, N, D, false, warp(), WARPS,
              [&](int k, int i, double value) { p.products[(size_t)k * N + i] = value; });
      sync();
      for (int k = 0; k < K; ++k)
        for (int chunk = 0; chunk < chunks<double>(N); ++chunk)
          combine<double>(chunk, N, p.inverse, N, 0, N, [&](int, int i) { return p.products[(size_t)k * N + i]; },
                          [&](int, int j, double sum) { p.solved[(size_t)k * N + j] = sum; });
      sync();
      for (int k = 0; k < K; ++k)
        for (int chunk = 0; chunk < chunks<float>(D); ++chunk)
          combine<float>(chunk, D, p.residuals, D, 0, N, [&](int, int i) { return (float)p.solved[(size_t)k * N + i]; },
                         [&](int, int d, float sum) {
                           const size_t at = (size_t)k * D + d;
                           p.directions[at] = (float)((p.offsets[at] - sum) / p.ridge);
                         });
    } else {
      for (int k = 0; k < K; ++k)
        for (int chunk = 0; chunk < chunks<double>(D); ++chunk)
          combine<double>(chunk, D, p.inverse, D, 0, D,
                          [&](int, int e) { return (double)p.offsets[(size_t)k * D + e]; },
                          [&](int, int d, double sum) { p.directions[(size_t)k * D + d] = (float)sum; });
    }
    sync();
    for (int k = warp(); k < K; k += WARPS) {
      const double trust = p.soft_counts[k] / (p.soft_counts[k] + p.mean_prior);
      double norm = 0, shift = 0;
      for (int d = warp_lane(); d < D; d += WARP) {
        const size_t at = (size_t)k * D + d;
        p.weights[at] = (float)(p.scale * trust * p.directions[at]);
        norm += (double)p.offsets[at] * p.directions[at], shift += p.weights[at] * p.centre[d];
      }
      norm = warp_sum(norm), shift = warp_sum(shift);
      if (warp_lane() == 0) p.bias[k] = (float)(-0.5 * p.scale * trust * trust * norm - shift);
    }
    sync();
    if (step + 1 == p.steps) break;
    product(p.queries, p.weights, M, K, D, false, warp(), WARPS, [&](int i, int k, double value) {
      p.share[(size_t)i * K + k] = p.temperature * (value + p.bias[k]);
    });
    sync();
    for (int i = warp(); i < M; i += WARPS) {
      double *share = p.share + (size_t)i * K, largest = -INFINITY, sum = 0;
      for (int k = warp_lane(); k < K; k += WARP) largest = share[k] > largest ? share[k] : largest;
      largest = warp_max(largest);
      for (int k = warp_lane(); k < K; k += WARP) sum += share[k] = exp(share[k] - largest);
      sum = warp_sum(sum);
      for (int k = warp_lane(); k < K; k += WARP) share[k] /= sum;
    }
    sync();
  }
}
