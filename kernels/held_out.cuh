// What the head would have said of each of its own samples had it not seen it, and the temperature from that.
//
// Without a sample with residual r of a class of n: mu' = mu - r / (n - 1) and S' = S - n / (n - 1) r r^T, so H'^-1
// follows from H^-1 by Sherman and Morrison, and every new product is a combination of old ones; ridge and pull stay.
#pragma once

#include "simt.cuh"

// Scores of row i under the head fitted without it, and its cosines with the nearest class mean (itself held out of
// its own: `known`) and with the nearest other one (`unknown`). A warp a row, a lane a class.
DEVICE void held_out_row(const HeldOutParams& p, int i) {
  const int own = p.index[i];
  const double n = p.counts[own], square = p.squares[i], pull = p.pulls[own];
  const double *cross = p.cross + (size_t)i * p.K, *projected = p.projected + (size_t)i * p.K;
  const double* between = p.between + (size_t)own * p.K;
  float* scores = p.held_out + (size_t)i * p.K;
  if (n <= 1) {  // alone in its class: there is no head without it
    for (int k = warp_lane(); k < p.K; k += WARP) scores[k] = 0;
    if (warp_lane() == 0) p.known[i] = p.unknown[i] = NAN;
    return;
  }
  // r = r_pulled - pull a_own
  const double own_r = projected[own] - pull * between[own];
  const double lever = p.leverage[i] - pull * (projected[own] + own_r);
  const double shift = 1 / ((n - 1) * p.K);  // the centre moves by -shift r
  const double gain = n / (n - 1), rest = 1 - gain * lever, factor = gain / (rest > 1e-12 ? rest : 1e-12);
  const double query_r = own_r + (1 + shift) * lever;
  double known = -INFINITY, unknown = -INFINITY;
  for (int k = warp_lane(); k < p.K; k += WARP) {
    // a_k' = a_k + step r,   u - m' = a_own + (1 + shift) r
    const double step = k == own ? shift - 1 / (n - 1) : shift;
    const double class_r = projected[k] - pull * between[k], offset_r = class_r + step * lever;
    const double query = between[k] + step * own_r + (1 + shift) * offset_r;
    const double norm = p.between[(size_t)k * p.K + k] + step * (class_r + offset_r);
    const double left = p.counts[k] - (k == own), trust = left / (left + p.mean_prior);
    scores[k] = (float)(p.scale * trust *
                        (query + factor * query_r * offset_r - 0.5 * trust * (norm + factor * offset_r * offset_r)));

    const double mean = p.means[(size_t)k * p.K + k];
    const double inner = k == own ? n * cross[k] - square : cross[k];
    const double lengths = square * (k == own ? n * n * mean - 2 * n * cross[k] + square : mean);
    const double cosine = lengths > 0 ? inner / sqrt(lengths) : 0;
    if (cosine > known) known = cosine;
    if (k != own && cosine > unknown) unknown = cosine;
  }
  known = warp_max(known), unknown = warp_max(unknown);
  if (warp_lane() == 0) p.known[i] = known, p.unknown[i] = unknown;
}

// The factor on scores with the least log-loss on held-out samples, under a log-normal prior (temperature scaling, Guo
// et al., ICML 2017). Of a class m samples are held out, and it counts m / (m + prior_weight): alike where all have as
// many, less where its mean loss stands on a few. By one block, a lane a sample; every lane gets it. The prior grows as
// scores shrink: by how much shorter offsets are under H^-1 than under the round covariance,
// |A|^2 / (ridge tr A H^-1 A^T).
//
// The slope by the logarithm l of the factor s is  s sum_i w_i (E_s[x_i] - x_i,own) + prior_weight (l - log prior).
// Halvings of a range of e^20 choose among its roots as the reference does, Newton steps sharpen the one.
constexpr int HALVINGS = 10;

DEVICE double temperature_of(const TemperatureParams& p) {
  double total = 0, counted = 0;
  for (int k = lane(); k < p.K; k += LANES) {
    const double m = p.counts[k] > 1 ? p.starts[k + 1] - p.starts[k] : 0;
    if (m > 0) total += m, counted += m / (m + p.prior_weight);
  }
  total = block_sum(total), counted = block_sum(counted);

  double squares = 0, shrunk = 0;
  for (int k = lane(); k < p.K; k += LANES) {
    double to_centre = 0;
    for (int l = 0; l < p.K; ++l) to_centre += p.means[(size_t)k * p.K + l];
    squares += p.means[(size_t)k * p.K + k] - to_centre / p.K;
    shrunk += p.ridge * p.between[(size_t)k * p.K + k];
  }
  squares = block_sum(squares), shrunk = block_sum(shrunk);
  const double prior = shrunk > 0 && squares > shrunk ? p.prior * squares / shrunk : p.prior;
  if (total == 0 || p.K < 2) return prior;

  const double middle = log(prior);
  double low = middle - 10, high = middle + 10, at = middle;
  for (int round = 0; round < HALVINGS + 5; ++round) {
    const double s = exp(at);
    double slope = 0, curvature = 0;
    for (int i = lane(); i < p.M; i += LANES) {
      const int own = p.index[i];
      if (p.counts[own] <= 1) continue;
      const float* x = p.held_out + (size_t)i * p.K;
      float largest = x[0];
      for (int k = 1; k < p.K; ++k) largest = x[k] > largest ? x[k] : largest;
      float sum = 0, first = 0, second = 0;  // of e^(s y), with y = x - largest
      for (int k = 0; k < p.K; ++k) {
        const float y = x[k] - largest, e = exp_of_negative((float)s * y);
        sum += e, first += e * y, second += e * y * y;
      }
      const double m = p.starts[own + 1] - p.starts[own], weight = total / (counted * (m + p.prior_weight));
      const double mean = first / sum;
      slope += weight * (mean - (x[own] - largest));
      curvature += weight * (second / sum - mean * mean);
    }
    slope = s * block_sum(slope);
    curvature = s * s * block_sum(curvature) + slope + p.prior_weight;
    slope += p.prior_weight * (at - middle);
    const double newton = at - slope / curvature;
    (slope > 0 ? high : low) = at;
    at = round < HALVINGS || curvature <= 0 ? 0.5 * (low + high) : fmin(fmax(newton, low), high);
  }
  return exp(at);
}
