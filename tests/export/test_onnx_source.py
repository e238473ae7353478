"""ONNX files as sources."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from fieldshot.errors import ExportError, MissingFileError
from fieldshot_export import batch, graph, onnx_source
from fieldshot_export.source import open_session
from networks import CONVOLUTIONS, HEAD, network, run, weights

SIZE = (32, 32)
TWO_OUTPUTS = "float[N, 16] embedding, float[N, 5] logits"


def save(model: onnx.ModelProto, folder: Path, name: str = "net.onnx") -> Path:
    onnx.save(model, folder / name)
    return folder / name


def embed(source: onnx_source.Source, n: int = 3) -> np.ndarray:
    """Embeddings of the exported network, after they were found equal to those of the source."""
    pictures = batch.noise(n, SIZE)
    got = open_session(source.model).run(["embedding"], {"input": pictures})[0]
    np.testing.assert_allclose(got, source.embed(pictures), rtol=1e-4, atol=1e-5)
    return got


def test_default_cut_is_the_output_named_embedding(tmp_path: Path) -> None:
    source = onnx_source.load(save(network(CONVOLUTIONS + HEAD, outputs=TWO_OUTPUTS), tmp_path), SIZE)
    expected = run(network(), {"input": batch.noise(3, SIZE)}, "embedding")
    np.testing.assert_allclose(embed(source), expected, rtol=1e-4, atol=1e-5)
    assert source.name == "net"
    assert source.description == "net.onnx, cut at embedding"
    assert "w3" not in {t.name for t in source.model.graph.initializer}
    assert graph.shape_of(source.model.graph.input[0]) == ["N", 3, 32, 32]
    assert graph.shape_of(source.model.graph.output[0]) == ["N", 16]


def test_default_cut_is_the_only_output(tmp_path: Path) -> None:
    path = save(network(CONVOLUTIONS + HEAD, outputs="float[N, 5] logits"), tmp_path)
    assert embed(onnx_source.load(path, SIZE)).shape == (3, 5)
    assert embed(onnx_source.load(path, SIZE, cut="embedding")).shape == (3, 16)


def test_default_cut_refuses_to_choose(tmp_path: Path) -> None:
    body = CONVOLUTIONS.replace("embedding", "features") + HEAD.replace("embedding", "features")
    path = save(network(body, outputs="float[N, 16] features, float[N, 5] logits"), tmp_path)
    with pytest.raises(ExportError, match=r"must be named.*--cut with features \(N, 16\), logits \(N, 5\)"):
        onnx_source.load(path, SIZE)


def test_a_map_is_averaged(tmp_path: Path) -> None:
    source = onnx_source.load(save(network(CONVOLUTIONS + HEAD, outputs=TWO_OUTPUTS), tmp_path), SIZE, cut="active")
    expected = run(network(), {"input": batch.noise(3, SIZE)}, "embedding")
    np.testing.assert_allclose(embed(source), expected, rtol=1e-4, atol=1e-5)
    assert any("its mean is the embedding" in note for note in source.notes)


def test_an_unknown_tensor_is_refused_with_near_ones(tmp_path: Path) -> None:
    path = save(network(CONVOLUTIONS + HEAD, outputs=TWO_OUTPUTS), tmp_path)
    with pytest.raises(ExportError, match=r"got 'embeding'.*--cut with embedding \(N, 16\), .*active \(N, 16, 8, 8\)"):
        onnx_source.load(path, SIZE, cut="embeding")
    with pytest.raises(ExportError, match="one of the network's"):
        onnx_source.load(path, SIZE, cut="input")  # not computed


def test_channels_last_gets_a_transpose(tmp_path: Path) -> None:
    body = "input = Transpose <perm = [0, 3, 1, 2]> (pixels)" + CONVOLUTIONS
    for dims in ("1, 32, 32, 3", "N, H, W, 3"):
        source = onnx_source.load(save(network(body, inputs=f"float[{dims}] pixels"), tmp_path), SIZE)
        expected = run(network(), {"input": batch.noise(3, SIZE)}, "embedding")
        np.testing.assert_allclose(embed(source), expected, rtol=1e-4, atol=1e-5)
        assert any("channels last" in note for note in source.notes)


def test_a_fixed_batch_becomes_dynamic(tmp_path: Path) -> None:
    for n in (1, 2):
        model = network(inputs=f"float[{n}, 3, 32, 32] input", outputs=f"float[{n}, 16] embedding")
        assert embed(onnx_source.load(save(model, tmp_path), SIZE), 5).shape == (5, 16)


@pytest.mark.parametrize("shape", [[1, 16], [1, -1], [1, 4, -1]])
def test_a_reshape_with_the_batch_baked_in_is_freed(tmp_path: Path, shape: list[int]) -> None:
    body = CONVOLUTIONS.replace("embedding = Flatten (pooled)", "flat = Reshape (pooled, shape)")
    tail = "embedding = Flatten (flat)"
    model = network(
        body + tail,
        inputs="float[1, 3, 32, 32] input",
        outputs="float[1, 16] embedding",
        constants={**weights(), "shape": np.array(shape)},
    )
    source = onnx_source.load(save(model, tmp_path), SIZE)
    assert "the batch was freed in 1 places" in source.notes
    expected = run(network(), {"input": batch.noise(3, SIZE)}, "embedding")
    np.testing.assert_allclose(embed(source), expected, rtol=1e-4, atol=1e-5)


def test_a_token_beside_the_picture_is_repeated(tmp_path: Path) -> None:
    """As in a vision transformer that was exported for one picture."""
    body = (
        CONVOLUTIONS.replace("embedding =", "flat =")
        + """
        tokens = Reshape (flat, shape)
        repeated = Expand (token, one)
        both = Concat <axis = 1> (repeated, tokens)
        mixed = Softmax <axis = 1> (both)
        embedding = ReduceMean <axes = [2], keepdims = 0> (mixed)
    """
    )
    constants = {"shape": np.array([1, 4, 4]), "token": np.ones((1, 1, 4)), "one": np.array([1, 1, 4])}
    model = network(
        body,
        inputs="float[1, 3, 32, 32] input",
        outputs="float[1, 5] embedding",
        constants={**weights(), **constants},
    )
    source = onnx_source.load(save(model, tmp_path), SIZE)
    assert "the batch was freed in 2 places" in source.notes
    assert embed(source).shape == (3, 5)


def test_a_batch_that_cannot_be_freed_is_refused(tmp_path: Path) -> None:
    mixing = "mean_over = ReduceMean <axes = [0]> (flat) embedding = Sub (flat, mean_over)"
    baked = "twice = Concat <axis = 0> (flat, flat) embedding = Reshape (twice, shape)"
    for tail in (mixing, baked):
        body = CONVOLUTIONS.replace("embedding =", "flat =") + tail
        model = network(
            body,
            inputs="float[1, 3, 32, 32] input",
            outputs="float[A, B] embedding",
            constants={**weights(), "shape": np.array([1, 32])},
        )
        with pytest.raises(ExportError, match="each picture of a batch the embedding that it has alone"):
            onnx_source.load(save(model, tmp_path), SIZE)


def test_an_old_opset_is_converted(tmp_path: Path) -> None:
    source = onnx_source.load(save(network(opset=9), tmp_path), SIZE)
    assert source.model.opset_import[0].version == onnx_source.MIN_OPSET
    assert "opset 9 was converted to 13" in source.notes
    embed(source)


def test_weights_listed_as_inputs_are_no_inputs(tmp_path: Path) -> None:
    model = network()
    for tensor in model.graph.initializer:
        model.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, 1, list(tensor.dims)))
    source = onnx_source.load(save(model, tmp_path), SIZE)
    assert [value.name for value in source.model.graph.input] == ["input"]


def test_a_second_input_is_refused_only_if_it_matters(tmp_path: Path) -> None:
    body = CONVOLUTIONS + "scaled = Mul (embedding, factor)"
    inputs = "float[N, 3, 32, 32] input, float[1] factor"
    path = save(network(body, inputs=inputs, outputs="float[N, 16] embedding, float[N, 16] scaled"), tmp_path)
    embed(onnx_source.load(path, SIZE))
    with pytest.raises(ExportError, match=r"exactly one input, the picture \(got input, factor\)"):
        onnx_source.load(path, SIZE, cut="scaled")


def test_float16_networks_are_refused(tmp_path: Path) -> None:
    half = {name: value.astype(np.float16) for name, value in weights().items()}
    model = network(inputs="float16[N, 3, 32, 32] input", outputs="float16[N, 16] embedding", constants=half)
    with pytest.raises(ExportError, match=r"must be float32 \(got float16\)"):
        onnx_source.load(save(model, tmp_path), SIZE)
    bytes_in = network("input = Cast <to = 1> (raw)" + CONVOLUTIONS, inputs="uint8[N, 3, 32, 32] raw")
    with pytest.raises(ExportError, match=r"must be float32 \(got uint8\)"):
        onnx_source.load(save(bytes_in, tmp_path), SIZE)


@pytest.mark.parametrize("dims", ["N, 3, 24, 32", "N, 1, 32, 32", "N, 32, 32, 1", "N, 3072"])
def test_an_input_that_is_no_picture_of_that_size_is_refused(tmp_path: Path, dims: str) -> None:
    model = network("embedding = Flatten (input)", inputs=f"float[{dims}] input", outputs="float[N, D] embedding")
    with pytest.raises(ExportError, match="must take pictures of 3 channels and 32x32"):
        onnx_source.load(save(model, tmp_path), SIZE)


def test_tokens_are_refused(tmp_path: Path) -> None:
    body = "embedding = Reshape (input, shape)"
    constants = {"shape": np.array([0, 16, -1])}
    model = network(body, outputs="float[N, 16, 192] embedding", constants=constants)
    with pytest.raises(ExportError, match=r"must have 2 dimensions.*\(1, 16, 192\).*class token"):
        onnx_source.load(save(model, tmp_path), SIZE)


def test_weights_in_another_file(tmp_path: Path) -> None:
    onnx.save(network(), tmp_path / "net.onnx", save_as_external_data=True, location="net.data", size_threshold=0)
    source = onnx_source.load(tmp_path / "net.onnx", SIZE)
    assert not any(t.external_data for t in source.model.graph.initializer)
    embed(source)
    (tmp_path / "net.data").unlink()
    with pytest.raises((ExportError, MissingFileError), match=r"net\.onnx must"):
        onnx_source.load(tmp_path / "net.onnx", SIZE)


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", b"not a network" * 100, b"\x08\x08"])
def test_what_is_no_network_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "net.onnx").write_bytes(content)
    with pytest.raises(ExportError, match="must be an ONNX network"):
        onnx_source.load(tmp_path / "net.onnx", SIZE)


def test_a_truncated_network_is_refused(tmp_path: Path) -> None:
    data = network().SerializeToString()
    (tmp_path / "net.onnx").write_bytes(data[: len(data) // 2])
    with pytest.raises(ExportError, match="must be an ONNX network"):
        onnx_source.load(tmp_path / "net.onnx", SIZE)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="must exist"):
        onnx_source.load(tmp_path / "absent.onnx", SIZE)
