"""What the operations are compared with: the same work in torch and CuPy, float32, written from ops/reference.py.

They leave out what only odd inputs need (scaling before the square root, classes of one sample among larger ones).
N samples, D embedding dimension, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fieldshot.ops import Classifier, Prior, Support, Transduction
from problems import Problem

BISECTIONS = 30


def transform(Z: Tensor) -> Tensor:
    """Signed square root, then unit length: (N, D)."""
    return torch.copysign((Z.abs() / Z.abs().sum(1, keepdim=True)).sqrt(), Z)


def fit(Z: Tensor, member: Tensor, prior: Prior) -> tuple[Tensor, ...]:
    """What `Solution` holds, in its order, of a dual fit; member (N, K) as of `member_of`."""
    N, K = member.shape
    U, counts = transform(Z), member.sum(0)
    means = member.T @ U / counts[:, None]
    centre = means.mean(0)
    A = means - centre
    R, factor, scale, ridge = system(U - member @ means, A, member, prior)
    solved = torch.cholesky_solve(torch.cat([R @ A.T, torch.eye(N, device=Z.device)], 1), factor)
    P, leverage = solved[:, :K], 1 - ridge * solved[:, K:].diagonal()  # H^-1 (R A^T), diag(R H^-1 R^T)
    directions = (A - P.T @ R) / ridge
    weights, bias = linear(counts, centre, A, directions, scale, prior)
    prototypes = means / means.norm(dim=1, keepdim=True)
    between, own = A @ directions.T, member.argmax(1)
    expected = prior.temperature * A.square().sum() / (ridge * between.trace())
    if N == K:  # each alone in its class: nothing can be held out
        nan = torch.full((N,), math.nan, device=Z.device)
        return weights, bias, prototypes, expected, nan, nan, torch.zeros_like(member)
    pull = pull_of(member, prior)  # r = r_pulled - pull a
    leverage = leverage - 2 * pull * (member * P).sum(1) + pull**2 * between.diagonal()[own]
    scores = held_out_scores(between, P - pull[:, None] * between[own], leverage, member, counts, scale, prior)
    factor = temperature(scores, member, counts, expected, prior.temperature_weight)
    return weights, bias, prototypes, factor, *cosines(U, means, member, counts), scores


def pull_of(member: Tensor, prior: Prior) -> Tensor:
    """How far each residual is taken from the centre: (N,)."""
    return (prior.pull / (member @ member.sum(0) - 1 + 2 * prior.pull)).sqrt()


def system(R: Tensor, A: Tensor, member: Tensor, prior: Prior) -> tuple[Tensor, Tensor, float, Tensor]:
    """Pulled residuals R, Cholesky factor of H = R R^T + ridge, scale and ridge."""
    (N, D), K = R.shape, len(A)
    squares, inner = A.square().sum(1), A @ A.T
    apart = squares[:, None] + squares - 2 * inner + torch.diag(torch.full_like(squares, math.inf))
    expected = prior.spread * apart.min(1).values.mean()
    spread = (R.square().sum() + prior.spread_weight * expected) / (N - K + prior.spread_weight)
    ridge = prior.covariance * spread / D
    R = R + pull_of(member, prior)[:, None] * (member @ A)
    factor, _ = torch.linalg.cholesky_ex(R @ R.T + ridge * torch.eye(N, device=R.device))  # does not wait
    return R, factor, N - K + prior.covariance, ridge


def linear(
    counts: Tensor, centre: Tensor, A: Tensor, directions: Tensor, scale: float, prior: Prior
) -> tuple[Tensor, Tensor]:
    """Weights and bias of the scores."""
    trust = counts / (counts + prior.mean)
    weights = (scale * trust)[:, None] * directions
    return weights, -0.5 * scale * trust**2 * (A * directions).sum(1) - weights @ centre


def held_out_scores(
    between: Tensor, P: Tensor, leverage: Tensor, member: Tensor, counts: Tensor, scale: float, prior: Prior
) -> Tensor:
    """Scores (N, K) of each sample under the head fitted without it."""
    n, own, lever = (member @ counts)[:, None], (member * P).sum(1, keepdim=True), leverage[:, None]
    shift = 1 / ((n - 1) * len(counts))
    step = shift - member / (n - 1)
    query = member @ between + step * own + (1 + shift) * (P + step * lever)
    norm = between.diagonal() + 2 * step * P + step**2 * lever
    gain = n / (n - 1)
    factor = gain / (1 - gain * lever).clamp_min(1e-12)
    offset = P + step * lever
    query = query + factor * (own + (1 + shift) * lever) * offset
    norm = norm + factor * offset**2
    left = counts - member
    trust = left / (left + prior.mean)
    return (scale - 1) * (trust * query - 0.5 * trust**2 * norm)


def temperature(scores: Tensor, member: Tensor, counts: Tensor, expected_at: Tensor, prior_weight: float) -> Tensor:
    """The factor with the least log-loss, a class of n counting n / (n + prior_weight), by bisection."""
    weight = member @ (1 / (counts + prior_weight))
    weight *= len(scores) / weight.sum()
    own, at = (member * scores).sum(1), expected_at.log()
    low, high = at - 10, at + 10
    for _ in range(BISECTIONS):
        middle = 0.5 * (low + high)
        expected = (torch.softmax(middle.exp() * scores, 1) * scores).sum(1)
        slope = middle.exp() * (weight * (expected - own)).sum() + prior_weight * (middle - at)
        low, high = torch.where(slope > 0, low, middle), torch.where(slope > 0, middle, high)
    return (0.5 * (low + high)).exp()


def cosines(U: Tensor, means: Tensor, member: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines of each sample with the nearest class mean, held out of its own, and with the nearest other one."""
    products, squares, norms, n = U @ means.T, U.square().sum(1), means.square().sum(1), member @ counts
    own = (member * products).sum(1)
    left = squares * (n**2 * (member @ norms) - 2 * n * own + squares)
    held_out = ((n * own - squares) / left.sqrt())[:, None]
    nearness = torch.where(member > 0, held_out, products / (squares[:, None] * norms).sqrt())
    return nearness.amax(1), torch.where(member > 0, -math.inf, nearness).amax(1)


def adapt(
    queries: Tensor, U: Tensor, member: Tensor, share: Tensor, prior: Prior, rule: Transduction
) -> tuple[Tensor, Tensor]:
    """Expectation maximisation of the means over transformed queries (M, D) of shares (M, K): weights and bias."""
    before, sums = member.sum(0), member.T @ U
    means = sums / before[:, None]
    R, factor, scale, ridge = system(U - member @ means, means - means.mean(0), member, prior)
    for _ in range(rule.steps):
        counts = before + rule.weight * share.sum(0)
        means = (sums + rule.weight * share.T @ queries) / counts[:, None]
        A = means - means.mean(0)
        directions = (A - torch.cholesky_solve(R @ A.T, factor).T @ R) / ridge
        weights, bias = linear(counts, means.mean(0), A, directions, scale, prior)
        share = torch.softmax(rule.temperature * (queries @ weights.T + bias), 1)
    return weights, bias


def predict(Z: Tensor, weights: Tensor, bias: Tensor, scale: float, top: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, probabilities and the best classes."""
    logits = scale * torch.addmm(bias, transform(Z), weights.T)
    return logits, torch.softmax(logits, 1), logits.topk(top).indices


def adam(Z: Tensor, own: Tensor, K: int, steps: int = 100, rate: float = 0.1) -> tuple[Tensor, Tensor]:
    """What people train on frozen features: softmax regression by Adam."""
    U = transform(Z)
    weights = torch.zeros(K, U.shape[1], device=U.device, requires_grad=True)
    bias = torch.zeros(K, device=U.device, requires_grad=True)
    optimiser = torch.optim.Adam([weights, bias], lr=rate)
    for _ in range(steps):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(U @ weights.T + bias, own).backward()
        optimiser.step()
    return weights.detach(), bias.detach()


def sides_of(work: Callable[..., Any], *arrays: np.ndarray, compiled: bool = False) -> dict[str, Callable[[], object]]:
    """Ways to run the same work on a GPU; compiling and capturing happen in the first call, the warm-up."""
    host = [torch.from_numpy(array) for array in arrays]
    there = [tensor.cuda() for tensor in host]
    graphs: list[torch.cuda.CUDAGraph] = []
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)

    def both_ways() -> object:
        return [result.cpu() for result in work(*(tensor.cuda() for tensor in host))]

    def waited(function: Callable[..., Any]) -> None:
        function(*there)
        torch.cuda.synchronize()

    def replayed() -> float:
        if not graphs:
            stream = torch.cuda.Stream()
            with torch.cuda.stream(stream):  # libraries set themselves up before anything is captured
                work(*there)
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                work(*there)
            graphs.append(graph)
        start.record()
        graphs[0].replay()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end))

    sides = {
        "torch eager, from and to the host": both_ways,
        "torch eager, on the device": lambda: waited(work),
        "torch CUDA graph, kernels alone": replayed,
    }
    if compiled:
        fused = cache(lambda: torch.compile(work, dynamic=False))
        sides["torch.compile, on the device"] = lambda: waited(fused())
    return sides


def member_of(support: Support) -> np.ndarray:
    """One where k is the class of i: (N, K)."""
    return np.eye(len(support.counts), dtype=np.float32)[support.index]


def fit_sides(given: Problem, *, compiled: bool) -> dict[str, Callable[[], object]]:
    """The work of `absorb` and `fit`, and what people train instead."""
    member = member_of(given.support)
    Z, own = torch.from_numpy(given.Z).cuda(), torch.from_numpy(given.support.index).long().cuda()

    def trained() -> None:
        adam(Z, own, member.shape[1])
        torch.cuda.synchronize()

    sides = sides_of(lambda Z, member: fit(Z, member, given.prior), given.Z, member, compiled=compiled)
    return {**sides, "torch Adam, 100 steps of softmax regression, on the device": trained}


def predict_sides(classifier: Classifier, Z: np.ndarray) -> dict[str, Callable[[], object]]:
    """The work of `predict`, the classifier already on the device."""
    weights, bias = torch.from_numpy(classifier.weights).cuda(), torch.from_numpy(classifier.bias).cuda()
    return sides_of(lambda Z: predict(Z, weights, bias, classifier.temperature), Z, compiled=True)


def adapt_sides(
    queries: np.ndarray, shares: np.ndarray, support: Support, prior: Prior, rule: Transduction
) -> dict[str, Callable[[], object]]:
    """The work of `adapt`."""
    member = member_of(support)
    return sides_of(lambda *tensors: adapt(*tensors, prior, rule), queries, support.U, member, np.float32(shares))


def preprocess(
    frames: Tensor, size: tuple[int, int], crop: tuple[int, int, int], interpolation: str
) -> tuple[Tensor, ...]:
    """Frames (N, H, W, 3) uint8, resized to (height, width), cut at (top, left, side), scaled to [-1, 1]."""
    top, left, side = crop
    planes = frames.permute(0, 3, 1, 2).float()
    resized = torch.nn.functional.interpolate(planes, size, mode=interpolation, antialias=True, align_corners=False)
    seen = resized[:, :, top : top + side, left : left + side].round().clamp(0, 255)
    return (seen / 127.5 - 1,)


def preprocess_sides(
    frames: np.ndarray, size: tuple[int, int], crop: tuple[int, int, int], interpolation: str
) -> dict[str, Callable[[], object]]:
    """The work of `preprocess`, which rounds to 8 bits in between too."""
    return sides_of(lambda frames: preprocess(frames, size, crop, interpolation), frames)


def moment_sides(U: np.ndarray) -> dict[str, Callable[[], object]]:
    """The second moment, all in float32, which the operations add up in float64."""
    return sides_of(lambda U: (U.T @ U,), U)
