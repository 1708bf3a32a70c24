"""A saved model comes back bit for bit or is refused with one sentence; a failed save leaves the old one whole."""

import errno
import json
import os
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from small import SWITCHES, network, text

from unmask import folder as folders
from unmask.errors import UserError
from unmask.models import checkpoint
from unmask.models.checkpoint import atomic_folder, load_model, resolve, save_model

METHOD = {"method": {"kind": "masked"}}


@pytest.fixture
def saved(tmp_path):
    save_model(tmp_path / "model", network(), METHOD, lambda p: (p / "tokenizer.json").write_text("{}"))
    return tmp_path / "model"


def unchecked(saved):
    """As if it came from the Hub: without a manifest."""
    (saved / "manifest.json").unlink()
    return saved


def change_config(saved, **fields):
    config = json.loads((saved / "config.json").read_text())
    config["model"].update(fields)
    (saved / "config.json").write_text(json.dumps(config))


def change_tensors(saved, change):
    tensors = load_file(saved / "model.safetensors")
    save_file(change(tensors), saved / "model.safetensors")


@pytest.mark.parametrize("switches", SWITCHES.values(), ids=SWITCHES)
def test_round_trip(switches, tmp_path):
    model = network(**switches)
    save_model(tmp_path / "m", model, METHOD)
    back, config = load_model(tmp_path / "m")
    assert back.config == model.config
    assert config["method"] == METHOD["method"]
    assert (config["architectures"], config["model_type"]) == (["UnmaskModel"], "unmask")
    for (name, a), (other, b) in zip(model.named_parameters(), back.named_parameters()):
        assert name == other
        assert torch.equal(a, b)
        assert a.requires_grad == b.requires_grad
    assert torch.equal(back.head(back(text())), model.head(model(text())))
    assert not back.training
    assert all(p.is_leaf for p in back.parameters())


def test_a_tied_head_is_stored_once_and_stays_tied(tmp_path):
    save_model(tmp_path / "m", network(tied=True), {})
    assert "head.weight" not in load_file(tmp_path / "m" / "model.safetensors")
    back, _ = load_model(tmp_path / "m")
    assert back.head.weight is back.embed.weight


def test_dtypes(tmp_path):
    save_model(tmp_path / "m", network().bfloat16(), {})
    assert load_model(tmp_path / "m")[0].head.weight.dtype == torch.bfloat16
    assert load_model(tmp_path / "m", dtype=torch.float32, device="cpu")[0].head.weight.dtype == torch.float32


def test_saving_twice_gives_the_same_bytes_and_no_litter(saved):
    first = {p.name: p.read_bytes() for p in saved.iterdir()}
    save_model(saved, network(), METHOD, lambda p: (p / "tokenizer.json").write_text("{}"))
    assert {p.name: p.read_bytes() for p in saved.iterdir()} == first
    assert os.listdir(saved.parent) == ["model"]


def test_a_folder_without_a_manifest_loads(saved):
    load_model(unchecked(saved))


def test_truncation(saved):
    path = saved / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    for check in ("size", "hash"):
        with pytest.raises(UserError, match=r"model\.safetensors: has \d+ bytes where the manifest says"):
            load_model(saved, check=check)
    with pytest.raises(UserError, match=r"model\.safetensors: is not a whole safetensors file"):
        load_model(unchecked(saved))


def test_tampering_is_seen_by_its_hash(saved):
    path = saved / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"model\.safetensors: its sha256 differs"):
        load_model(saved)
    load_model(saved, check="size")


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_missing_file(saved, name):
    (saved / name).unlink()
    with pytest.raises(UserError, match=f"{name}: is missing though the manifest lists it"):
        load_model(saved)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_missing_file_of_an_unlisted_folder(saved, name):
    (unchecked(saved) / name).unlink()
    with pytest.raises(UserError, match=f"{name}: is missing"):
        load_model(saved)


@pytest.mark.parametrize("content", ["{", "[]", '{"files": [1]}', '{"files": {"a": 3}}'])
def test_a_broken_manifest(saved, content):
    (saved / "manifest.json").write_text(content)
    with pytest.raises(UserError, match=r"manifest\.json: (is not|holds)"):
        load_model(saved)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda t: {k: v for k, v in t.items() if k != "norm.weight"}, "tensor 'norm.weight' is missing"),
        (lambda t: {**t, "norm.wieght": t["norm.weight"].clone()}, "'norm.wieght' has no place.*mean 'norm.weight'"),
        (lambda t: {**t, "norm.weight": torch.ones(3)}, r"'norm.weight' has shape \(3,\) where .* asks for \(32,\)"),
    ],
    ids=["missing", "extra", "shape"],
)
def test_tensors_that_do_not_fit(saved, change, complaint):
    change_tensors(unchecked(saved), change)
    with pytest.raises(UserError, match=complaint):
        load_model(saved)


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"widht": 3}, r"config\.json: model\.widht is not known .* did you mean 'width'"),
        ({"width": -3}, r"config\.json: model\.width=-3 is wrong"),
        ({"width": "wide"}, r"model\.width='wide' is wrong"),
        ({"heads": 5}, "width=32 is not a multiple of heads=5"),
    ],
)
def test_config_keys(saved, fields, complaint):
    change_config(unchecked(saved), **fields)
    with pytest.raises(UserError, match=complaint) as caught:
        load_model(saved)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["{", "[1]", '{"model_type": "llama"}', '{"model_type": "unmask"}', "\x00\xff"])
def test_foreign_configs(saved, content):
    (unchecked(saved) / "config.json").write_text(content, encoding="latin-1")
    with pytest.raises(UserError, match=r"config\.json"):
        load_model(saved)


def no_space(*args, **kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("where", ["save_file", "write_manifest", "_fsync"])
def test_a_full_disk_leaves_the_old_model(saved, monkeypatch, where):
    old = load_model(saved)[0]
    monkeypatch.setattr(folders, where, no_space)
    with pytest.raises(UserError, match=r"model: cannot be saved \(No space left on device\).*untouched; free some"):
        save_model(saved, network(seed=1), METHOD)
    assert os.listdir(saved.parent) == ["model"]
    assert all(torch.equal(a, b) for a, b in zip(old.parameters(), load_model(saved)[0].parameters()))


def test_a_full_disk_inside_safetensors_is_told_as_such(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise folders.SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(folders, "save_file", full)
    with pytest.raises(UserError, match="nothing was written; free some space"):
        save_model(tmp_path / "m", network(), {})
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_save_leaves_the_old_model(saved, interruption):
    def fails(fresh):
        (fresh / "config.json").write_text("half")
        raise interruption

    with pytest.raises(interruption):
        save_model(saved, network(), METHOD, fails)
    load_model(saved)
    assert os.listdir(saved.parent) == ["model"]


def test_a_crash_between_the_renames_loses_nothing(saved, tmp_path):
    """The old folder stands aside, the new one is not in place: loading and the next save both find the old one."""
    saved.rename(tmp_path / ".model.old")
    (tmp_path / ".model.new").mkdir()
    load_model(saved)
    assert resolve(saved).name == ".model.old"
    with pytest.raises(RuntimeError), atomic_folder(saved):
        raise RuntimeError
    assert os.listdir(tmp_path) == ["model"]
    load_model(saved)


def test_a_crash_before_the_old_one_is_deleted_leaves_the_new_one(saved, tmp_path):
    shutil.copytree(saved, tmp_path / ".model.old")
    change = network(seed=1)
    save_model(saved, change, METHOD)
    assert os.listdir(tmp_path) == ["model"]
    assert torch.equal(load_model(saved)[0].embed.weight, change.embed.weight)


def test_there_is_a_whole_folder_at_every_moment(saved, monkeypatch):
    """Before and after each rename something loads from the model's name."""
    rename, seen = type(saved).rename, []

    def watched(self, target):
        load_model(saved)
        rename(self, target)
        seen.append(load_model(saved))

    monkeypatch.setattr(type(saved), "rename", watched)
    save_model(saved, network(seed=1), METHOD)
    assert len(seen) == 2


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be saved"):
        save_model(tmp_path / "file" / "m", network(), {})


def test_extra_config_may_not_hide_the_model(tmp_path):
    with pytest.raises(AssertionError, match="model_type"):
        save_model(tmp_path / "m", network(), {"model_type": "x"})


def test_resolving_local_names(saved, tmp_path, monkeypatch):
    assert resolve(saved) == saved
    with pytest.raises(UserError, match=r"no folder .*modle'; did you mean 'model'\?"):
        resolve(tmp_path / "modle")
    with pytest.raises(UserError, match="is a file; name the folder"):
        resolve(saved / "config.json")
    with pytest.raises(UserError, match="does not exist either"):
        resolve(tmp_path / "nowhere" / "deep" / "model")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    with pytest.raises(UserError, match="holds no folders"):
        resolve("runs/missing")  # runs is here, so this is a path and the hub is not asked


def test_resolving_hub_names(tmp_path, monkeypatch):
    import huggingface_hub

    asked = []
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda name, allow_patterns: asked.append(name) or str(tmp_path)
    )
    monkeypatch.chdir(tmp_path)
    assert resolve("some-owner/model-1.5") == tmp_path
    assert asked == ["some-owner/model-1.5"]
    assert not any(p.endswith((".bin", ".pt", ".py")) for p in checkpoint.HUB_FILES)

    def fails(name, allow_patterns):
        raise ConnectionError("no route\nmore")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fails)
    with pytest.raises(UserError, match=r"hub did not give it \(no route\)"):
        resolve("some-owner/model-1.5")
