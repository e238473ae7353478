"""Train the embedded default backbone from scratch, by distillation from an ImageNet teacher.

    python export/train_default.py --tiny-imagenet TAR --teacher MODEL.onnx --out DIR

The student (`fieldshot_export.compact`) sees a crop of a picture and learns what the teacher said about the
same crop ("a good teacher is patient and consistent", Beyer et al., CVPR 2022): its softened class
probabilities (Hinton et al., 2015), the direction of its embedding through a linear map that is dropped
afterwards, and, with a small weight, the true label. The teacher's answers about a few fixed crops of each
picture are computed once and kept in DIR. Each epoch ends with one printed line and with
DIR/compact.safetensors, the moving average of the weights so far. Pictures of ten classes are never trained
on: the printed accuracy is of few-shot episodes on them.
"""

from __future__ import annotations

import argparse
import io
import math
import os
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from fieldshot_export.compact import DIM, compact

SIZE = 64  # side of the pictures in the tar
TEACHER_SIZE = 224
HELD_OUT_CLASSES = 10
BATCH = 128
PEAK_RATE = 3e-3
WEIGHT_DECAY = 0.05
WARM_UP = 0.03  # fraction of the training
SMALL_SIZE, SMALL_UNTIL = 48, 0.4  # the first part sees smaller pictures: an epoch takes about half the time
TEMPERATURE = 2.0
COSINE_WEIGHT, LABEL_WEIGHT = 5.0, 0.5
EMA_DECAY = 0.998


def read_tar(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read a tar of CLASS/NAME.JPEG: uint8 pictures (N, 64, 64, 3) and integer labels (N,)."""
    pictures, names = [], []
    with tarfile.open(path) as tar:
        for member in tar:
            if member.isfile() and member.name.upper().endswith((".JPEG", ".JPG")):
                data = tar.extractfile(member).read()
                pictures.append(np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))
                names.append(Path(member.name).parent.name)
    if not pictures:
        raise ValueError(f"{path} must hold pictures named CLASS/NAME.JPEG (got none)")
    return np.stack(pictures), np.unique(names, return_inverse=True)[1]


def crops(pictures: np.ndarray, view: int, seed: int) -> np.ndarray:
    """Crop each picture: view 0 is the whole picture, the others are seeded random crops."""
    if view == 0:
        return pictures
    rng = np.random.default_rng([seed, view])
    out = np.empty_like(pictures)
    for i, picture in enumerate(pictures):
        area, ratio = rng.uniform(0.3, 1.0), math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = (min(SIZE, SIZE * math.sqrt(area * r)) for r in (ratio, 1 / ratio))
        x, y = rng.uniform(0, SIZE - w), rng.uniform(0, SIZE - h)
        box = (x, y, x + w, y + h)
        out[i] = np.asarray(Image.fromarray(picture).resize((SIZE, SIZE), Image.Resampling.BILINEAR, box))
    return out


def normalise(pictures: torch.Tensor) -> torch.Tensor:
    """Map uint8 (N, H, W, 3) to float32 (N, 3, H, W) in [-1, 1], channels last in memory."""
    return pictures.permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)


def teach(pictures: np.ndarray, teacher: Path, stem: Path, threads: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Ask the teacher about each picture, or read its earlier answers: float16 logits and embeddings."""
    files = [stem.with_name(f"{stem.name}_{output}.npy") for output in ("logits", "embedding")]
    if not all(f.exists() and np.load(f, mmap_mode="r").shape[0] == len(pictures) for f in files):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(teacher, options, providers=["CPUExecutionProvider"])
        answers: list[list[np.ndarray]] = []
        started = time.perf_counter()
        for i in range(0, len(pictures), 32):
            x = normalise(torch.from_numpy(pictures[i : i + 32])).contiguous()
            x = F.interpolate(x, TEACHER_SIZE, mode="bilinear", align_corners=False)
            found = session.run(["logits", "embedding"], {"input": x.numpy()})
            answers.append([a.astype(np.float16) for a in found])
            if i % 6400 == 0:
                seconds = time.perf_counter() - started
                print(f"{stem.name} {i}/{len(pictures)} {seconds:.0f} s", flush=True)
        for file, parts in zip(files, zip(*answers, strict=True), strict=True):
            partial = file.with_suffix(".partial")
            with partial.open("wb") as f:
                np.save(f, np.concatenate(parts))
            os.replace(partial, file)
    logits, embedding = (torch.from_numpy(np.load(f)) for f in files)
    return logits, embedding


def augment(x: torch.Tensor, size: int, generator: torch.Generator) -> torch.Tensor:
    """Flip, resize, and jitter brightness, contrast and saturation (one in ten loses its colour)."""

    def draw(low: float, high: float) -> torch.Tensor:
        return torch.empty(len(x), 1, 1, 1).uniform_(low, high, generator=generator)

    x = torch.where(draw(0, 1) < 0.5, x, x.flip(3))
    if size != x.shape[-1]:
        x = F.interpolate(x, size, mode="bilinear", align_corners=False, antialias=False)
    saturation = draw(0.6, 1.4) * (draw(0, 1) > 0.1)
    grey = x.mean(1, keepdim=True)
    x = grey + (x - grey) * saturation
    middle = grey.mean((2, 3), keepdim=True)
    x = middle + (x - middle) * draw(0.7, 1.3) + draw(-0.2, 0.2)
    return x.clamp_(-1, 1).contiguous(memory_format=torch.channels_last)


class Student(nn.Module):
    """The backbone with the three linear maps that only training needs."""

    def __init__(self, n_logits: int, n_embedding: int, n_labels: int) -> None:
        super().__init__()
        self.backbone = compact().to(memory_format=torch.channels_last)
        self.logits = nn.Linear(DIM, n_logits)
        self.embedding = nn.Linear(DIM, n_embedding)
        self.label = nn.Linear(DIM, n_labels)

    def loss(self, x: torch.Tensor, logits: torch.Tensor, embedding: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Compare with the teacher's logits, its centred embedding and the labels."""
        with torch.autocast("cpu", torch.bfloat16):  # twice as fast where the CPU has bfloat16 dot products
            z = self.backbone(x)
            a, b, c = self.logits(z), self.embedding(z), self.label(z)
        t = TEMPERATURE
        ours, theirs = F.log_softmax(a.float() / t, 1), F.log_softmax(logits / t, 1)
        soft = F.kl_div(ours, theirs, log_target=True, reduction="batchmean")
        direction = 1 - F.cosine_similarity(b.float(), embedding).mean()
        label = F.cross_entropy(c.float(), y, label_smoothing=0.1)
        return t * t * soft + COSINE_WEIGHT * direction + LABEL_WEIGHT * label


def few_shot(z: torch.Tensor, y: np.ndarray, shots: int, episodes: int = 200, queries: int = 15) -> float:
    """Measure the accuracy of a nearest class mean on unit embeddings, in seeded 5-way episodes."""
    rng = np.random.default_rng(shots)
    z = F.normalize(z)
    rows = [np.flatnonzero(y == c) for c in np.unique(y)]
    truth = torch.arange(5).repeat_interleave(queries)
    correct = 0.0
    for _ in range(episodes):
        ways = rng.choice(len(rows), 5, replace=False)
        picked = np.stack([rng.choice(rows[w], shots + queries, replace=False) for w in ways])
        means = F.normalize(z[picked[:, :shots]].mean(1))
        correct += (z[picked[:, shots:].ravel()] @ means.T).argmax(1).eq(truth).float().mean().item()
    return correct / episodes


@torch.inference_mode()
def embed(backbone: nn.Module, pictures: np.ndarray) -> torch.Tensor:
    """Embed uint8 pictures (N, H, W, 3) in evaluation mode."""
    backbone.eval()
    parts = np.array_split(pictures, -(-len(pictures) // 100))
    return torch.cat([backbone(normalise(torch.from_numpy(part))) for part in parts])


def replace_file(path: Path, write: Callable[[Path], None]) -> None:
    """Write a file beside `path`, then move it there, so that `path` is whole at every instant."""
    partial = path.with_suffix(".partial")
    write(partial)
    os.replace(partial, path)


def train(args: argparse.Namespace) -> None:
    """Prepare the data, train, and leave compact.safetensors in the output folder."""
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    pictures, labels = read_tar(args.tiny_imagenet)
    n_classes = int(labels.max()) + 1
    held_out = np.random.default_rng(args.seed).permutation(n_classes)[:HELD_OUT_CLASSES]
    kept = ~np.isin(labels, held_out)
    held_pictures, held_labels = pictures[~kept], labels[~kept]
    pictures, y = pictures[kept], torch.from_numpy(labels[kept])  # labels keep their numbers: ten stay unused
    stems = [args.out / f"teacher_seed{args.seed}_view{v}" for v in range(args.views)]
    views = [crops(pictures, v, args.seed) for v in range(args.views)]
    answers = [teach(p, args.teacher, stem, args.threads) for p, stem in zip(views, stems, strict=True)]
    x = [torch.from_numpy(p) for p in views]
    centre = answers[0][1].float().mean(0)  # what all pictures share would make every cosine look good

    student = Student(answers[0][0].shape[1], len(centre), n_classes)
    average = compact()
    average.load_state_dict(student.backbone.state_dict())
    groups = [
        {"params": [p for p in student.parameters() if p.ndim > 1], "weight_decay": WEIGHT_DECAY},
        {"params": [p for p in student.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, PEAK_RATE, fused=True)
    n, n_steps = len(y), len(y) // BATCH
    epoch, spent, state_file = 0, 0.0, args.out / "train_state.pt"
    if args.resume and state_file.exists():
        state = torch.load(state_file, weights_only=True)
        for key, part in (("student", student), ("average", average), ("optimizer", optimizer)):
            part.load_state_dict(state[key])
        epoch, spent = state["epoch"], state["spent"]

    ours = [t for t in student.backbone.state_dict().values() if t.is_floating_point()]
    mean = [t for t in average.state_dict().values() if t.is_floating_point()]
    started = time.monotonic() - spent
    done = 0.0
    while done < 1.0:
        generator = torch.Generator().manual_seed(args.seed * 1000 + epoch)
        student.train()
        order = torch.randperm(n, generator=generator)
        which = torch.randint(args.views, (n,), generator=generator)
        total, step = 0.0, 0
        for step in range(1, n_steps + 1):
            at = epoch * n_steps + step
            done = at / (args.epochs * n_steps)
            if args.minutes:  # on a busy machine the clock drives the schedule, so that it always reaches its end
                done = max(done, (time.monotonic() - started) / (60 * args.minutes))
            done = min(done, 1.0)
            rate = PEAK_RATE * min(1.0, done / WARM_UP) * (0.5 + 0.5 * math.cos(math.pi * done))
            for group in optimizer.param_groups:
                group["lr"] = rate
            rows = order[(step - 1) * BATCH : step * BATCH]
            view = which[rows].tolist()
            pairs = list(zip(view, rows.tolist(), strict=True))
            seen = augment(
                normalise(torch.stack([x[v][i] for v, i in pairs])),
                SMALL_SIZE if done < SMALL_UNTIL else SIZE,
                generator,
            )
            logits = torch.stack([answers[v][0][i] for v, i in pairs]).float()
            embedding = torch.stack([answers[v][1][i] for v, i in pairs]).float() - centre
            loss = student.loss(seen, logits, embedding, y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()
            torch._foreach_lerp_(mean, ours, 1 - min(EMA_DECAY, at / (at + 20)))
            if done >= 1.0:
                break
        epoch += 1
        replace_file(args.out / "compact.safetensors", lambda p: save_file(average.state_dict(), p))
        spent = time.monotonic() - started
        state = {"student": student, "average": average, "optimizer": optimizer}
        state = {key: part.state_dict() for key, part in state.items()} | {"epoch": epoch, "spent": spent}
        replace_file(state_file, lambda p, s=state: torch.save(s, p))
        z = embed(average, held_pictures)
        one, five = (100 * few_shot(z, held_labels, shots) for shots in (1, 5))
        print(
            f"epoch {epoch} done {done:.3f} rate {rate:.5f} loss {total / step:.3f} "
            f"held-out 5-way {one:.1f} / {five:.1f} at {spent:.0f} s",
            flush=True,
        )


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description="Train the embedded default backbone.")
    parser.add_argument("--tiny-imagenet", type=Path, required=True, metavar="TAR", help="of CLASS/NAME.JPEG")
    parser.add_argument("--teacher", type=Path, required=True, metavar="MODEL.onnx", help="embedding, logits")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where all results go")
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--minutes", type=float, help="finish the schedule within this time of training")
    parser.add_argument("--views", type=int, default=3, help="crops of each picture")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true", help="go on from the last complete epoch in DIR")
    train(parser.parse_args())


if __name__ == "__main__":
    main()
