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

constexpr int RIGHT = LANES == 1 ? 16 : 4;  // rows that share what is read of L
constexpr int STEP = LANES == 1 ? 16 : 4;   // columns that are solved between two barriers
constexpr int FEW = 64;                     // rows that stay in the cache while all weights are made of them

KERNEL(back, BackParams) {
  for (int first = block() * RIGHT; first < p.K; first += blocks() * RIGHT) {
    const int count = p.K - first < RIGHT ? p.K - first : RIGHT;
    const double* right = p.right + (size_t)first * p.n;
    double* y = p.solved + (size_t)first * p.n;
    for (int j = lane(); j < count * p.n; j += LANES) y[j] = right[j];
    sync();
    for (int begin = (p.n - 1) / STEP * STEP; begin >= 0; begin -= STEP) {
      // Every lane solves these columns for itself; past the last one x is 0.
      double x[STEP][RIGHT];
      const double* L[STEP];
      for (int q = 0; q < STEP; ++q) L[q] = p.system + (size_t)(begin + q < p.n ? begin + q : p.n - 1) * p.n;
      for (int q = STEP - 1; q >= 0; --q) {
        const bool inside = begin + q < p.n;
        const int c = inside ? begin + q : p.n - 1;
        const double pivot = inside ? 1 / L[q][c] : 0;
        for (int r = 0; r < RIGHT; ++r) {
          double sum = r < count ? y[(size_t)r * p.n + c] : 0;
          for (int later = 0; later < STEP; ++later)  // to a fixed end, or x does not stay in registers
            if (later > q) sum -= x[later][r] * L[later][c];
          x[q][r] = sum * pivot;
        }
      }
      int j = lane() * VEC<double>;
      for (; j + VEC<double> <= begin; j += LANES * VEC<double>) {
        Vec<double> rows[STEP];
        for (int q = 0; q < STEP; ++q) rows[q] = load<double>(L[q] + j);
        for (int r = 0; r < RIGHT; ++r)
          if (r < count) {
            Vec<double> sum = load<double>(y + (size_t)r * p.n + j);
            for (int q = 0; q < STEP; ++q) sum -= x[q][r] * rows[q];
            store<double>(y + (size_t)r * p.n + j, sum);
          }
      }
      if (VEC<double> > 1)
        for (; j < begin; ++j)
          for (int r = 0; r < count; ++r)
            for (int q = 0; q < STEP; ++q) y[(size_t)r * p.n + j] -= x[q][r] * L[q][j];
      sync();
      if (lane() == 0)
        for (int q = 0; q < STEP; ++q)
          for (int r = 0; r < RIGHT; ++r)
            if (r < count && begin + q < p.n) y[(size_t)r * p.n + begin + q] = x[q][r];
    }
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
    float* row = p.coefficients + (size_t)k * (p.N + p.K);
    for (int i = warp_lane(); i < p.N; i += WARP) row[i] = (float)(-factor * p.solved[(size_t)k * p.N + i]);
    for (int l = warp_lane(); l < p.K; l += WARP) row[p.N + l] = l == k ? (float)factor : 0;
  }
}

KERNEL(weights, WeightsParams) {
  if (p.dual) {
    const int N = p.N + p.K, most = LANES == 1 && p.D % CHUNK<float, ROWS> == 0 ? FEW : N;
    for (int from = 0; from < N; from += most)
      combine_rows(p.rows + (size_t)from * p.D, p.coefficients + from, N, p.weights, N - from < most ? N - from : most, p.D,
                   p.K, from > 0, block(), blocks());
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
