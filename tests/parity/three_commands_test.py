"""The three commands, as a user types them: convert, generate, export."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import jaxmoe

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

ROOT = Path(__file__).resolve().parents[2]
PROMPT = "How many primes are below 100?"
CHATS = (
    [{"role": "user", "content": PROMPT}],
    [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": PROMPT},
        {"role": "assistant", "content": "<think>\nhm\n</think>\n\n25"},
        {"role": "user", "content": "日本語 \U0001f600?"},
    ],
)


def run(cwd: Path, *args) -> str:
    """What a Python command prints, run in the directory `cwd`."""
    env = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    options = {"capture_output": True, "text": True, "check": False}
    command = [sys.executable, *map(str, args)]
    done = subprocess.run(command, cwd=cwd, env=env, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


def save_model(path: Path, tokenizer: Path) -> dict:
    """Writes a tiny model beside the published tokenizer; gives its tensors."""
    config = transformers.Qwen3MoeConfig(
        vocab_size=151936,
        hidden_size=32,
        intermediate_size=48,
        moe_intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        num_experts=8,
        num_experts_per_tok=2,
        tie_word_embeddings=False,
    )
    torch.manual_seed(0)
    model = transformers.Qwen3MoeForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(path)
    for file in tokenizer.iterdir():
        shutil.copyfile(file, path / file.name)
    return model.state_dict()


def test_three_commands(tmp_path, qwen3_tokenizer_dir):
    """A checkpoint of the hub could not be converted, sampled from, or given back."""
    state = save_model(tmp_path / "SRC", qwen3_tokenizer_dir)

    run(tmp_path, "-m", "convert", "SRC", "DST")
    options = ("--n", 8, "--seed", 0, "--max-new-tokens", 8)
    script = ROOT / "scripts" / "generate.py"
    printed = run(tmp_path, script, "DST", "--prompt", PROMPT, *options)
    run(tmp_path, "-m", "convert", "--export", "DST", "AGAIN")

    for sample in range(8):
        assert printed.count(f"[answer {sample}] (") == 1
    assert printed.count("[answer ") == 8
    assert printed.splitlines()[-1].startswith("8 answers (")

    again = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "AGAIN", dtype="auto"
    ).state_dict()
    assert again.keys() == state.keys()
    for name, tensor in state.items():
        assert again[name].dtype == tensor.dtype == torch.bfloat16, name
        assert torch.equal(again[name].view(torch.int16), tensor.view(torch.int16))

    model = jaxmoe.load(tmp_path / "DST")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "AGAIN")
    for chat in CHATS:
        ids = theirs.apply_chat_template(chat, add_generation_prompt=True)
        assert model.chat(chat) == list(ids["input_ids"])
