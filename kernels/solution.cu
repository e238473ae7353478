// From the factored system (cholesky.cu) to a head.
//
//   `back`       rows y = b L^-T  ->  x = y L^-1 = b H^-1             (K, n), substitution from the last column on;
//                in the dual case, where b = A R^T, these are P^T with P = R H^-1 A^T (push-through)
//   `gather`     dual: P of the samples held out, leverage = 1 - ridge |l_i|^2 with l_i the rows of L^-T,
//                A H^-1 A^T = (A A^T - Y Y^T) / ridge (Woodbury);     primal: leverage = |y_i|^2
//   `weights`    primal: scale g_k A H^-1;  dual: scale g_k / ridge (a_k - sum_i P[i,k] r_i), a sum over the samples
//                by the factors of `coefficients`
//   `bias`       -scale g_k^2 / 2 (A H^-1 A^T)[k,k] - weights_k . m
//   `held_out`, `temperature`: held_out.cuh
//
// `back`: a block takes RIGHT rows, a lane a column. `gather`, `coefficients`, `bias`, `held_out`: a
// warp a row. `weights`: a block a chunk of dimensions of four classes. `temperature`: one block.

#include "held_out.cuh"
#include "linear.cuh"

constexpr int RIGHT = 4;

KERNEL(back, BackParams) {
  for (int first = block() * RIGHT; first < p.K; first += blocks() * RIGHT) {
    // Four rows share what is read of L. A row y stays undivided by the diagonal until the end: others read it.
    double* y[RIGHT];
    for (int r = 0; r < RIGHT; ++r) y[r] = p.solved + (size_t)(first + r) * p.n;
    const int count = p.K - first < RIGHT ? p.K - first : RIGHT;
    for (int r = 0; r < count; ++r)
      for (int j = lane(); j < p.n; j += LANES) y[r][j] = p.right[(size_t)(first + r) * p.n + j];
    sync();
    for (int i = p.n - 1; i > 0; --i) {
      const double* row = p.system + (size_t)i * p.n;
      const double pivot = 1 / row[i];
      double x[RIGHT];
      for (int r = 0; r < RIGHT; ++r) x[r] = r < count ? y[r][i] * pivot : 0;
      if (count == RIGHT) {
        for (int j = lane(); j < i; j += LANES)
          for (int r = 0; r < RIGHT; ++r) y[r][j] -= x[r] * row[j];
      } else {
        for (int r = 0; r < count; ++r)
          for (int j = lane(); j < i; j += LANES) y[r][j] -= x[r] * row[j];
      }
      sync();
    }
    for (int j = lane(); j < p.n; j += LANES)
      for (int r = 0; r < count; ++r) y[r][j] /= p.system[(size_t)j * p.n + j];
    sync();
  }
}

KERNEL(gather, GatherParams) {
  for (int i = block() * WARPS + warp(); i < p.M; i += blocks() * WARPS) {
    const double* row = p.rows + (size_t)i * p.n;
    const int sample = p.n - p.M + i;  // the dual case's column of row i
    double square = 0;
    for (int j = (p.dual ? sample : 0) + warp_lane(); j < p.n; j += WARP) square += row[j] * row[j];
    square = warp_sum(square);
    if (warp_lane() == 0) p.leverage[i] = p.dual ? 1 - p.ridge * square : square;
    if (p.dual)
      for (int k = warp_lane(); k < p.K; k += WARP) p.projected[(size_t)i * p.K + k] = p.solved[(size_t)k * p.n + sample];
  }
  if (p.dual)
    for (int t = block() * LANES + lane(); t < p.K * p.K; t += blocks() * LANES)
      p.between[t] = (p.between[t] - p.half[t]) / p.ridge;
}

KERNEL(coefficients, WeightsParams) {
  for (int k = block() * WARPS + warp(); k < p.K; k += blocks() * WARPS) {
    const double factor = p.scale * p.counts[k] / (p.counts[k] + p.mean_prior) / p.ridge;
    float* row = p.coefficients + (size_t)k * (p.K + p.N);
    for (int l = warp_lane(); l < p.K; l += WARP) row[l] = l == k ? (float)factor : 0;
    for (int i = warp_lane(); i < p.N; i += WARP) row[p.K + i] = (float)(-factor * p.solved[(size_t)k * p.N + i]);
  }
}

KERNEL(weights, WeightsParams) {
  if (p.dual) {
    combine_rows(p.rows, p.coefficients, p.weights, p.K + p.N, p.D, p.K, block(), blocks());
    return;
  }
  for (int k = block(); k < p.K; k += blocks()) {
    const double factor = p.scale * p.counts[k] / (p.counts[k] + p.mean_prior);
    for (int d = lane(); d < p.D; d += LANES)
      p.weights[(size_t)k * p.D + d] = (float)(factor * p.solved[(size_t)k * p.D + d]);
  }
}

KERNEL(bias, WeightsParams) {
  for (int k = block() * WARPS + warp(); k < p.K; k += blocks() * WARPS) {
    double shift = 0;
    for (int d = warp_lane(); d < p.D; d += WARP) shift += p.weights[(size_t)k * p.D + d] * p.centre[d];
    shift = warp_sum(shift);
    const double trust = p.counts[k] / (p.counts[k] + p.mean_prior);
    if (warp_lane() == 0)
      p.bias[k] = (float)(-0.5 * p.scale * trust * trust * p.between[(size_t)k * p.K + k] - shift);
  }
}

KERNEL(held_out, HeldOutParams) {
  for (int i = block() * WARPS + warp(); i < p.M; i += blocks() * WARPS) held_out_row(p, i);
}

KERNEL(temperature, TemperatureParams) {
  const double temperature = temperature_of(p);
  if (lane() == 0) *p.temperature = temperature;
}
