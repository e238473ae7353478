// Inner products, the inner loop of every kernel that reads embeddings.
#pragma once

#include "simt.cuh"

// A warp's micro-tile: ROWS x COLS inner products at once, so that each number read serves several. On the host 4 x 3
// accumulators and their operands just fill 16 vector registers.
constexpr int ROWS = 4, COLS = VEC<float> > 1 ? 3 : 4;

// out[r][c] = sum_k a[r][k] b[c][k], k < n, by one warp; each lane gets all of them.
// Lanes sum in T, their sums are added in double.
template <int R, int C, typename T>
DEVICE void dots(const T* const (&a)[R], const T* const (&b)[C], int n, double (&out)[R][C]) {
  Vec<T> sums[R][C] = {};
  int k = warp_lane() * VEC<T>;
  for (; k + VEC<T> <= n; k += WARP * VEC<T>) {
    Vec<T> left[R];
    for (int r = 0; r < R; ++r) left[r] = load<T>(a[r] + k);
    for (int c = 0; c < C; ++c) {
      Vec<T> right = load<T>(b[c] + k);
      for (int r = 0; r < R; ++r) sums[r][c] += left[r] * right;
    }
  }
  for (int r = 0; r < R; ++r)
    for (int c = 0; c < C; ++c) {
      double sum = total<T>(sums[r][c]);
      if (VEC<T> > 1)
        for (int rest = k; rest < n; ++rest) sum += (double)a[r][rest] * b[c][rest];
      out[r][c] = warp_sum(sum);
    }
}

// Tiles of a product C = A B^T, (n, depth) x (m, depth) -> (n, m), dealt to warps; `write(i, j, value)` is called once
// for each element, by one lane. With `lower` only for j <= i. Tiles are walked in groups of columns
// that stay in the cache while the rows pass by.
template <typename T, typename Write>
DEVICE void product(const T* A, const T* B, int n, int m, int depth, bool lower, int first, int step, Write write) {
  constexpr int GROUP = 16;
  const int rows = (n + ROWS - 1) / ROWS, cols = (m + COLS - 1) / COLS;
  const int tiles = (cols + GROUP - 1) / GROUP * GROUP * rows;
  for (int t = first; t < tiles; t += step) {
    const int group = t / (rows * GROUP), rest = t % (rows * GROUP);
    const int i = rest / GROUP * ROWS, j = (group * GROUP + rest % GROUP) * COLS;
    if (j >= m || (lower && j > i + ROWS - 1)) continue;
    const T *a[ROWS], *b[COLS];
    for (int r = 0; r < ROWS; ++r) a[r] = A + (size_t)(i + r < n ? i + r : n - 1) * depth;
    for (int c = 0; c < COLS; ++c) b[c] = B + (size_t)(j + c < m ? j + c : m - 1) * depth;
    double out[ROWS][COLS];
    dots(a, b, depth, out);
    for (int r = 0; r < ROWS; ++r)
      for (int c = 0; c < COLS; ++c)
        if (warp_lane() == (r * COLS + c) % WARP && i + r < n && j + c < m && (!lower || j + c <= i + r))
          write(i + r, j + c, out[r][c]);
  }
}

// Sums over rows: write(r, d, sum_i coefficient(r, i) rows[i][d]) for R sums at once, i = first to last - 1, and the
// dimensions d < D of the given chunk, by a team of TEAM lanes (the block, or a warp). A lane owns dimensions and reads
// down all rows. Sums are of type A. On the host the last chunk reaches back into the one before, to be a whole one.
template <typename A, int R = 1, int TEAM = LANES> constexpr int CHUNK = LANES == 1 ? REGISTERS / 2 / R * VEC<A> : TEAM;

template <typename A, int R = 1, int TEAM = LANES> DEVICE int chunks(int D) {
  return (D + CHUNK<A, R, TEAM> - 1) / CHUNK<A, R, TEAM>;
}

template <typename A, int R = 1, int TEAM = LANES, typename T, typename Coefficient, typename Write>
DEVICE void combine(int chunk, int D, const T* rows, size_t stride, int first, int last, Coefficient coefficient,
                    Write write) {
  constexpr int SIZE = CHUNK<A, R, TEAM>, PIECES = SIZE / VEC<A>;
  int from = chunk * SIZE;
  if (VEC<A> > 1 && D >= SIZE) {
    if (from + SIZE > D) from = D - SIZE;
    Vec<A> sums[R][PIECES] = {};
    for (int i = first; i < last; ++i) {
      Vec<A> row[PIECES];
      for (int q = 0; q < PIECES; ++q) row[q] = load<A>(rows + i * stride + from + q * VEC<A>);
      for (int r = 0; r < R; ++r) {
        const A factor = coefficient(r, i);
        for (int q = 0; q < PIECES; ++q) sums[r][q] += factor * row[q];
      }
    }
    for (int r = 0; r < R; ++r) {
      A out[SIZE];
      for (int q = 0; q < PIECES; ++q) store<A>(out + q * VEC<A>, sums[r][q]);
      for (int d = 0; d < SIZE; ++d) write(r, from + d, out[d]);
    }
  } else {
    for (int d = from + lane() % TEAM; d < D && d < from + SIZE; d += TEAM) {
      A sums[R] = {};
      for (int i = first; i < last; ++i) {
        const A value = rows[i * stride + d];
        for (int r = 0; r < R; ++r) sums[r] += coefficient(r, i) * value;
      }
      for (int r = 0; r < R; ++r) write(r, d, sums[r]);
    }
  }
}

// out = (more ? out : 0) + C rows: (K, N) x (N, D) -> (K, D) float32, tasks of ROWS classes by a chunk of dimensions dealt
// to blocks. Rows of C are `stride` numbers apart. With `more` the host needs whole chunks.
DEVICE void combine_rows(const float* rows, const float* C, size_t stride, float* out, int N, int D, int K, bool more,
                         int first, int step) {
  const int parts = chunks<float, ROWS>(D);
  for (int task = first; task < parts * ((K + ROWS - 1) / ROWS); task += step) {
    const int k = task / parts * ROWS;
    const float* c[ROWS];
    for (int r = 0; r < ROWS; ++r) c[r] = C + (k + r < K ? k + r : K - 1) * stride;
    combine<float, ROWS>(task % parts, D, rows, D, 0, N, [&](int r, int i) { return c[r][i]; },
                         [&](int r, int d, float sum) {
                           float* to = out + (size_t)(k + r) * D + d;
                           if (k + r < K) *to = more ? *to + sum : sum;
                         });
  }
}
