// The system H = L L^T and what is to be multiplied by H^-1, solved together by blocks.
//
// `assemble` lays out one matrix `system` of n columns: H (n, n), below it the right-hand rows b. The blocked Cholesky
// factorisation carried on below H turns each row b into b L^-T: forward substitution comes with the factor.
//
//   samples up to D (dual)   n = N   H = R R^T + ridge I         rows: K of A R^T, then the last M of the identity
//   more than D (primal)     n = D   H = S + ridge I             rows: M residuals, then K of A
//                                    S = moment - sum_k n_k mu_k mu_k^T + sum_k n_k s_k^2 a_k a_k^T (pull.cuh)
//   adapt                    n = N or D                          rows: identity
//
// For each block column of 64: `cholesky_diagonal` factors its diagonal block and inverts it (one block, in shared
// memory), `cholesky_panel` multiplies the rows below by that inverse (a warp STRIP rows) and keeps them in panels as
// well, `cholesky_update` subtracts their products from the columns to the right (a block a 64 x 64 tile). Rows of the
// identity are zero up to their own block and are left out until then: those of the samples to be held out, M of N, lie
// last and cost M^3 / 6.
// Floor: n^3 / 6 + (rows - n - M) n^2 / 2 + M^3 / 6 float64 operations, 3 n / 64 launches.

#include "factor.cuh"
#include "tile.cuh"

KERNEL(assemble, SystemParams) {
  if (p.moment) {
    for (int i = (block() * WARPS + warp()) * ROWS; i < p.n; i += blocks() * WARPS * ROWS) {
      const auto row = [&](int r) { return i + r < p.n ? i + r : p.n - 1; };
      // n_k s_k^2 a_k, whose outer product with a_k = sums_k / n_k - m falls into a part in sums_k and one in m.
      const auto offset = [&](int r, int k) {
        const double s = p.pulls[k];
        return s * s * (p.sums[(size_t)k * p.n + row(r)] - p.counts[k] * p.centre[row(r)]);
      };
      double offsets[ROWS] = {};
      for (int r = 0; r < ROWS; ++r)
        for (int k = 0; k < p.K; ++k) offsets[r] += offset(r, k);
      for (int chunk = 0; chunk < chunks<double, ROWS, WARP>(i + ROWS < p.n ? i + ROWS : p.n); ++chunk)
        combine<double, ROWS, WARP>(
            chunk, p.n, p.sums, p.n, 0, p.K,
            [&](int r, int k) { return (p.sums[(size_t)k * p.n + row(r)] - offset(r, k)) / p.counts[k]; },
            [&](int r, int j, double value) {
              if (j > row(r) || i + r >= p.n) return;
              const size_t at = (size_t)row(r) * p.n + j;
              p.system[at] = p.moment[at] - value - offsets[r] * p.centre[j] + (row(r) == j ? p.ridge : 0);
            });
    }
  } else {
    for (int i = block() * LANES + lane(); i < p.n; i += blocks() * LANES) p.system[(size_t)i * p.n + i] += p.ridge;
  }
  for (int i = p.n + block() * WARPS + warp(); i < p.rows; i += blocks() * WARPS) {
    double* row = p.system + (size_t)i * p.n;
    if (i >= p.identity) {
      for (int j = warp_lane(); j < p.n; j += WARP) row[j] = j == i - (p.rows - p.n);
    } else if (p.right) {
      for (int j = warp_lane(); j < p.n; j += WARP) row[j] = p.right[(size_t)(i - p.n) * p.n + j];
    }
  }
}

KERNEL(cholesky_diagonal, SystemParams) {
  double* L = (double*)shared_memory();
  double* line = L + TILE * TILE;
  const int w = p.n - p.start < TILE ? p.n - p.start : TILE;
  double* H = p.system + (size_t)p.start * p.n + p.start;
  for (int i = warp(); i < w; i += WARPS)
    for (int j = warp_lane(); j < w; j += WARP) L[i * w + j] = j <= i ? H[(size_t)i * p.n + j] : 0;
  sync();
  factor(L, w, line);
  for (int i = warp(); i < w; i += WARPS)
    for (int j = warp_lane(); j <= i; j += WARP) H[(size_t)i * p.n + j] = L[i * w + j];
  sync();
  invert(L, w, line);
  for (int i = warp(); i < w; i += WARPS)  // transposed: read along its rows
    for (int j = warp_lane(); j < w; j += WARP) p.inverse[i * w + j] = L[j * w + i];
}

// Where number k of row i below a whole block column is in the panels.
DEVICE double* in_panels(const SystemParams& p, int i, int k) {
  const int below = i - p.start - TILE;
  return p.panels + ((size_t)(below / TILE) * TILE + k) * TILE + below % TILE;
}

// The block column in which the tile of rows from i on begins: before it, rows of the identity are zero, and left out.
DEVICE int begin(const SystemParams& p, int i) {
  return i >= p.identity ? (i - (p.rows - p.n)) / TILE * TILE : 0;
}

KERNEL(cholesky_panel, SystemParams) {
  constexpr int ROWS = STRIP<double>;
  SHARED(double, old, WARPS* ROWS* TILE);
  const int w = p.n - p.start < TILE ? p.n - p.start : TILE, first = p.start + w;
  double* mine = old + warp() * ROWS * TILE;
  for (int base = first + block() * WARPS * ROWS; base < p.rows; base += blocks() * WARPS * ROWS) {
    const int i = base + warp() * ROWS, count = p.rows - i < ROWS ? p.rows - i : ROWS;
    const bool active = count > 0 && begin(p, i - (i - first) % TILE) <= p.start;
    double* row = p.system + (size_t)i * p.n + p.start;
    if (active)
      for (int r = 0; r < ROWS; ++r)
        for (int j = warp_lane(); j < w; j += WARP) mine[r * TILE + j] = r < count ? row[(size_t)r * p.n + j] : 0;
    sync();
    if (active) {
      for (int chunk = 0; chunk < chunks<double, ROWS, WARP>(w); ++chunk) {
        const int end = (chunk + 1) * CHUNK<double, ROWS, WARP>;  // the inverse is triangular
        combine<double, ROWS, WARP>(
            chunk, w, p.inverse, w, 0, end < w ? end : w, [&](int r, int k) { return mine[r * TILE + k]; },
            [&](int r, int j, double value) {
              if (r < count) row[(size_t)r * p.n + j] = value;
            });
      }
      if (first < p.n) turn(row, p.n, count, w, in_panels(p, i, 0));
    }
    sync();
  }
}

KERNEL(cholesky_update, SystemParams) {
  SHARED(double, left, DEPTH* TILE);
  SHARED(double, right, DEPTH* TILE);
  const int first = p.start + TILE;  // a block column with others to its right is whole
  const int across = (p.n - first + TILE - 1) / TILE, down = (p.rows - first + TILE - 1) / TILE;
  for (int task = block(); task < across * down; task += blocks()) {
    const int row = first + task / across * TILE, column = first + task % across * TILE;
    if (column > row) continue;  // above the diagonal
    if (begin(p, row) > p.start) continue;
    const int height = p.rows - row, width = p.n - column;
    const Place to = {p.system + (size_t)row * p.n + column, (size_t)p.n, height, width, row - column};
    Tile<double> tile;
    for (int from = 0; from < TILE; from += DEPTH) {
      sync();  // those who still read the last panels
      const double* A = staged(left, in_panels(p, row, from), TILE, DEPTH, height);
      const double* B = staged(right, in_panels(p, column, from), TILE, DEPTH, width);
      sync();
      tile.add(A, B, DEPTH, to, -1, false, from + DEPTH == TILE);
    }
  }
}
