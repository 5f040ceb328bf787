"""Makes what the command lines on record need: a tiny model, and for each case an adapter of its rank. The paths on record are replaced by these."""

import json
import pathlib
import sys

import torch
import yaml
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

HIDDEN, LAYERS = 256, 2
RANKS = {
    "adapter-rank-8": (8, {}),
    "adapter-rank-17": (17, {}),
    "adapter-rank-64": (64, {}),
    "adapter-rank-pattern": (8, {"q_proj": 48, "v_proj": 4}),
}
MODULES = ["q_proj", "v_proj"]


def make_model(folder):
    config = LlamaConfig(hidden_size=HIDDEN, intermediate_size=512, num_hidden_layers=LAYERS, num_attention_heads=4,
                         num_key_value_heads=4, vocab_size=128, max_position_embeddings=512)
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    words = {word: index for index, word in enumerate(["<unk>", "<s>", "</s>"] + [f"w{n}" for n in range(122)] + list("abc"))}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>").save_pretrained(folder)


def make_adapter(folder, rank, pattern):
    folder.mkdir()
    weights = {}
    for layer in range(LAYERS):
        for module in MODULES:
            own = pattern.get(module, rank)
            prefix = f"base_model.model.model.layers.{layer}.self_attn.{module}"
            weights[f"{prefix}.lora_A.weight"] = torch.randn(own, HIDDEN, dtype=torch.bfloat16) * 0.01
            weights[f"{prefix}.lora_B.weight"] = torch.randn(HIDDEN, own, dtype=torch.bfloat16) * 0.01
    save_file(weights, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "rank_pattern": pattern, "lora_alpha": 2 * rank,
              "target_modules": MODULES, "bias": "none", "base_model_name_or_path": "base"}
    (folder / "adapter_config.json").write_text(json.dumps(config))


def main(record, work, *wanted):
    work = pathlib.Path(work)
    model = work / "base"
    make_model(model)
    _, _, text = pathlib.Path(record).read_text().split("---\n", 2)
    for name, words in yaml.safe_load(text).items():
        if wanted and name not in wanted:
            continue
        case = work / "cases" / name
        case.mkdir(parents=True)
        # After `vllm serve` comes the model; an adapter's path ends the word that names it.
        words[2] = str(model)
        if name in RANKS:
            make_adapter(case / "adapter", *RANKS[name])
            words = [f"{word.rsplit('=', 1)[0]}={case / 'adapter'}" if word.startswith("--lora-modules=") else word for word in words]
        (case / "command").write_text("\n".join(words) + "\n")
        (case / "port").write_text(next(word.split("=")[1] for word in words if word.startswith("--port=")))


if __name__ == "__main__":
    main(*sys.argv[1:])
