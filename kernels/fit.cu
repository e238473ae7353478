// The whole fine-tuning of a head on few samples, in one launch of one block.
//
// The model is that of fieldshot/ops/reference.py. Everything it needs of the samples U (N, D) is in their Gram matrix
// G = U U^T, for residuals r and offsets a are combinations of samples. With k the class of i, and bars for averages
//
//   u_i . mu_k  = cross[i,k] = mean of G[i,j] over j of class k              mu_k . mu_l = means[k,l], likewise
//   r_i . r_j   = G[i,j] - cross[i,k(j)] - cross[j,k(i)] + means[k(i),k(j)]
//   r_i . a_k   = cross[i,k] - cross[i,.] - means[k(i),k] + means[k(i),.]    (averages over all classes)
//   a_k . a_l   = means[k,l] - means[k,.] - means[l,.] + means[.,.]
//   r'_i        = r_i + s_k(i) a_k(i)              (pull.cuh), from here on R is that of r'
//   H           = R R^T + ridge I = L L^T,   T = L^-1 (R A^T)
//   P           = H^-1 (R A^T) = L^-T T,     leverage_i = 1 - ridge (H^-1)[i,i]
//   A H^-1 A^T  = (A A^T - T^T T) / ridge    (between; this H is the D x D one: Woodbury)
//   weights_k   = scale g_k / ridge (a_k - sum_i P[i,k] r'_i),  a combination of the rows of U
//
// H (N, N) float64 stays in shared memory; the (N, K) matrices are in scratch, which one block keeps in its cache.
// Floor: N D floats read twice, N^2 D / 2 + N K D float32 and N^3 / 3 float64 operations.

#include "factor.cuh"
#include "held_out.cuh"
#include "linear.cuh"
#include "pull.cuh"

constexpr double LEAST_DISTANCE = 1e-4;  // as in fieldshot/ops/reference.py
constexpr double LEAST_RIDGE = 1e-5;     // above what rounding does to H: G is of float32 products

KERNEL(fit, FitParams) {
  const int N = p.N, D = p.D, K = p.K;
  double* H = (double*)shared_memory();
  double* line = H + (size_t)N * N;

  product(p.U, p.U, N, N, D, true, warp(), WARPS,
          [&](int i, int j, double value) { H[(size_t)i * N + j] = H[(size_t)j * N + i] = value; });
  sync();

  for (int t = lane(); t < N * K; t += LANES) {
    const int i = t / K, k = t % K;
    double sum = 0;
    for (int j = p.starts[k]; j < p.starts[k + 1]; ++j) sum += H[(size_t)i * N + j];
    p.cross[t] = sum / (p.starts[k + 1] - p.starts[k]);
  }
  for (int i = lane(); i < N; i += LANES) p.squares[i] = H[(size_t)i * N + i];
  for (int k = lane(); k < K; k += LANES) {
    p.counts[k] = p.starts[k + 1] - p.starts[k];
    p.pulls[k] = pulled(p.counts[k], p.pull);
  }
  sync();

  for (int t = lane(); t < K * K; t += LANES) {
    const int k = t / K, l = t % K;
    double sum = 0;
    for (int i = p.starts[k]; i < p.starts[k + 1]; ++i) sum += p.cross[(size_t)i * K + l];
    p.means[t] = sum / p.counts[k];
  }
  sync();

  // Averages over classes, of each sample and each class mean: the products with the common centre.
  for (int i = lane(); i < N; i += LANES) {
    double sum = 0;
    for (int k = 0; k < K; ++k) sum += p.cross[(size_t)i * K + k];
    p.sample_centre[i] = sum / K;
  }
  for (int k = lane(); k < K; k += LANES) {
    double sum = 0;
    for (int l = 0; l < K; ++l) sum += p.means[(size_t)k * K + l];
    p.class_centre[k] = sum / K;
  }
  sync();
  double centre = 0;  // of the centre with itself
  for (int k = 0; k < K; ++k) centre += p.class_centre[k];
  centre /= K;
  for (int t = lane(); t < K * K; t += LANES)
    p.offsets[t] = p.means[t] - p.class_centre[t / K] - p.class_centre[t % K] + centre;
  for (int t = lane(); t < N * K; t += LANES) {
    const int i = t / K, k = t % K, own = p.index[i];
    p.right[t] = p.cross[t] - p.sample_centre[i] - p.means[(size_t)own * K + k] + p.class_centre[own];
  }
  sync();
  double trace = 0;
  for (int i = warp(); i < N; i += WARPS) {
    const int own = p.index[i];
    for (int j = warp_lane(); j <= i; j += WARP) {
      const int other = p.index[j];
      const double inner = H[(size_t)i * N + j] - p.cross[(size_t)i * K + other] - p.cross[(size_t)j * K + own] +
                           p.means[(size_t)own * K + other];
      const double mine = p.pulls[own], its = p.pulls[other];
      H[(size_t)i * N + j] = inner + mine * p.right[(size_t)j * K + own] + its * p.right[(size_t)i * K + other] +
                             mine * its * p.offsets[(size_t)own * K + other];
      if (i == j) trace += inner;
    }
    for (int j = i + 1 + warp_lane(); j < N; j += WARP) H[(size_t)i * N + j] = 0;
  }
  trace = block_sum(trace);
  double apart = 0;
  for (int k = lane(); k < K; k += LANES) {
    double nearest = K > 1 ? INFINITY : 0;
    for (int l = 0; l < K; ++l) {
      const double distance = p.offsets[(size_t)k * (K + 1)] + p.offsets[(size_t)l * (K + 1)] -
                              2 * p.offsets[(size_t)k * K + l];
      if (l != k && distance < nearest) nearest = distance;
    }
    apart += nearest / K;
  }
  apart = block_sum(apart);
  const double freedom = N - K, expected = p.spread * (apart > LEAST_DISTANCE ? apart : LEAST_DISTANCE);
  const double spread = (trace + p.spread_weight * expected) / (freedom + p.spread_weight);
  const double ridge = fmax(p.covariance_prior * spread / D, LEAST_RIDGE), scale = freedom + p.covariance_prior;
  for (int i = lane(); i < N; i += LANES) H[(size_t)i * N + i] += ridge;
  for (int t = lane(); t < N * K; t += LANES) {
    const int own = p.index[t / K];
    p.right[t] += p.pulls[own] * p.offsets[(size_t)own * K + t % K];
  }
  sync();

  factor(H, N, line);
  invert(H, N, line);

  for (int t = lane(); t < N * K; t += LANES) {
    const int i = t / K, k = t % K;
    double sum = 0;
    for (int j = 0; j <= i; ++j) sum += H[(size_t)i * N + j] * p.right[(size_t)j * K + k];
    p.half[t] = sum;
  }
  sync();
  for (int t = lane(); t < K * K; t += LANES) {
    const int k = t / K, l = t % K;
    double sum = p.offsets[t];
    for (int i = 0; i < N; ++i) sum -= p.half[(size_t)i * K + k] * p.half[(size_t)i * K + l];
    p.between[t] = sum / ridge;
  }
  for (int t = lane(); t < N * K; t += LANES) {
    const int i = t / K, k = t % K;
    double sum = 0;
    for (int j = i; j < N; ++j) sum += H[(size_t)j * N + i] * p.half[(size_t)j * K + k];
    p.projected[t] = sum;
  }
  for (int i = lane(); i < N; i += LANES) {
    double sum = 0;
    for (int j = i; j < N; ++j) sum += H[(size_t)j * N + i] * H[(size_t)j * N + i];
    p.leverage[i] = 1 - ridge * sum;
  }
  sync();

  // Of sum_i P[i,k] r'_i, with r'_i = u_i - (1 - s) mu - s m: what falls to each class mean, and to the centre.
  for (int t = lane(); t < K * K; t += LANES) {
    const int c = t / K, k = t % K;
    double sum = 0;
    for (int i = p.starts[c]; i < p.starts[c + 1]; ++i) sum += p.projected[(size_t)i * K + k];
    p.offsets[t] = sum;
  }
  sync();
  for (int k = warp(); k < K; k += WARPS) {
    const double factor = scale / ridge * p.counts[k] / (p.counts[k] + p.mean_prior);
    double to_centre = 0;
    for (int c = warp_lane(); c < K; c += WARP) to_centre += p.pulls[c] * p.offsets[(size_t)c * K + k];
    to_centre = (warp_sum(to_centre) - 1) / K;
    for (int i = warp_lane(); i < N; i += WARP) {
      const int own = p.index[i];
      const double to_mean = (own == k) + (1 - p.pulls[own]) * p.offsets[(size_t)own * K + k];
      p.coefficients[(size_t)k * N + i] =
          (float)(factor * ((to_mean + to_centre) / p.counts[own] - p.projected[(size_t)i * K + k]));
    }
  }
  sync();

  combine_rows(p.U, p.coefficients, N, p.weights, N, D, K, false, 0, 1);
  for (int k = 0; k < K; ++k) {
    const double length = sqrt(p.means[(size_t)k * K + k]);
    const float unit = length > 0 ? (float)(1 / (length * p.counts[k])) : 0;
    for (int chunk = 0; chunk < chunks<float>(D); ++chunk)
      combine<float>(chunk, D, p.U, D, p.starts[k], p.starts[k + 1], [&](int, int) { return unit; },
                     [&](int, int d, float sum) { p.prototypes[(size_t)k * D + d] = sum; });
  }
  for (int k = lane(); k < K; k += LANES) {
    const double trust = p.counts[k] / (p.counts[k] + p.mean_prior);
    double bias = -0.5 * scale * trust * trust * p.between[(size_t)k * K + k];
    for (int i = 0; i < N; ++i) bias -= p.coefficients[(size_t)k * N + i] * p.sample_centre[i];
    p.bias[k] = (float)bias;
  }

  const HeldOutParams left_out = {p.index,    p.counts,   p.pulls,   p.cross, p.squares, p.means, p.projected,
                                  p.leverage, p.between,  p.held_out, p.known, p.unknown, scale - 1, p.mean_prior,
                                  N,          K};
  for (int i = warp(); i < N; i += WARPS) held_out_row(left_out, i);
  sync();
  const double temperature = temperature_of(
      {p.held_out, p.index, p.starts, p.counts, p.means, p.between, nullptr, p.temperature_prior,
       p.temperature_weight, ridge, N, K});
  if (lane() == 0) *p.temperature = temperature;
}
