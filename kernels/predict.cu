// From embeddings to answers, in one launch for a batch.
//
//   u = transform(z)      logits = scale (W u + b)      probabilities = softmax(logits)      cosines = prototypes . u
//   best: the `top` classes of the largest logits, the first of equals first
//
// A block takes QUERIES embeddings: their transforms lie in shared memory, a warp makes QUERIES x COLS scores
// at once, then a warp finishes a query.
// Floor: K D floats read per block (twice with cosines), N K D operations.

#include "linear.cuh"
#include "transform.cuh"

constexpr int QUERIES = ROWS;

// write(r, k, value) = U[r] . W[k] for R queries in shared memory and all K rows of W; warps share out the classes.
template <int R, typename Write> DEVICE void scores(const float* U, const float* W, int D, int K, Write write) {
  const float* u[R];
  for (int r = 0; r < R; ++r) u[r] = U + r * D;
  for (int k = warp() * COLS; k < K; k += WARPS * COLS) {
    const float* w[COLS];
    for (int c = 0; c < COLS; ++c) w[c] = W + (size_t)(k + c < K ? k + c : K - 1) * D;
    double out[R][COLS];
    dots(u, w, D, out);
    for (int r = 0; r < R; ++r)
      for (int c = 0; c < COLS; ++c)
        if (warp_lane() == (r * COLS + c) % WARP && k + c < K) write(r, k + c, out[r][c]);
  }
}

// Softmax of K logits, and the `top` best of them, by one warp.
DEVICE void finish(const double* logits, double* probabilities, int* best, int K, int top) {
  double largest = -INFINITY, sum = 0;
  for (int k = warp_lane(); k < K; k += WARP) largest = logits[k] > largest ? logits[k] : largest;
  largest = warp_max(largest);
  for (int k = warp_lane(); k < K; k += WARP) sum += probabilities[k] = exp(logits[k] - largest);
  const double share = 1 / warp_sum(sum);
  for (int k = warp_lane(); k < K; k += WARP) probabilities[k] *= share;
  double last = INFINITY;
  int at = -1;  // the last one found
  for (int t = 0; t < top; ++t) {
    double value = -INFINITY;
    for (int k = warp_lane(); k < K; k += WARP) {
      const bool after = logits[k] < last || (logits[k] == last && k > at);
      if (after && logits[k] > value) value = logits[k];
    }
    value = warp_max(value);
    int first = K;
    for (int k = warp_lane(); k < K; k += WARP)
      if (logits[k] == value && (value < last || k > at) && k < first) first = k;
    at = -warp_max(-first), last = value;
    if (at == K) at = K - 1;  // nothing compares with NaN
    if (warp_lane() == 0) best[t] = at;
  }
}

KERNEL(predict, PredictParams) {
  float* U = (float*)shared_memory();  // (QUERIES, D)
  for (int first = block() * QUERIES; first < p.N; first += blocks() * QUERIES) {
    const int count = p.N - first < QUERIES ? p.N - first : QUERIES;
    for (int r = warp(); r < count; r += WARPS)
      transform_row(p.Z + (size_t)(first + r) * p.D, U + r * p.D, p.D);
    sync();
    const auto score = [&](int r, int k, double value) {
      if (r < count) p.logits[(size_t)(first + r) * p.K + k] = p.scale * (value + p.bias[k]);
    };
    const auto compare = [&](int r, int k, double value) {
      if (r < count) p.cosines[(size_t)(first + r) * p.K + k] = value;
    };
    // A lone query, as from a camera, does without the work of four.
    count == 1 ? scores<1>(U, p.weights, p.D, p.K, score) : scores<QUERIES>(U, p.weights, p.D, p.K, score);
    if (p.cosines)
      count == 1 ? scores<1>(U, p.prototypes, p.D, p.K, compare) : scores<QUERIES>(U, p.prototypes, p.D, p.K, compare);
    sync();
    for (int r = warp(); r < count; r += WARPS) {
      const size_t i = first + r;
      finish(p.logits + i * p.K, p.probabilities + i * p.K, p.best + i * p.top, p.K, p.top);
    }
    sync();
  }
}
