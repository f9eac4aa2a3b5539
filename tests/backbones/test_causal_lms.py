import importlib.util
import subprocess
import sys

import pytest
import torch
from causal_lm_folders import TEXTS, edit, gradients, saved
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from fedlit.backbones import LoRA
from fedlit.backbones.causal_lms import LORA_TARGETS, causal_stand_in, load_causal_lm
from fedlit.backbones.checkpointing import can_checkpoint
from fedlit.backbones.lora import attach
from fedlit.backbones.tiny_causal_lms import OWN
from fedlit.errors import FedlitError

SEVEN = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


@pytest.mark.parametrize("name", ["stand-in:llama", "stand-in:qwen3", "stand-in:gpt2", "stand-in:gemma"])
def test_a_folder_is_what_transformers_reads(name, tmp_path):
    made = saved(tmp_path, name)
    loaded = load_causal_lm(str(tmp_path))
    tokens = loaded.family.tokenizer(TEXTS[:2], padding=True, return_tensors="pt")
    with torch.no_grad():
        theirs = AutoModelForCausalLM.from_pretrained(tmp_path)(**tokens).logits
        assert torch.equal(loaded.network(**tokens).logits, theirs)
        assert torch.equal(made.network(**tokens).logits, theirs)
    assert loaded.source == str(tmp_path)
    assert not loaded.stand_in
    assert not loaded.network.training
    assert {one.dtype for one in loaded.network.parameters()} == {torch.float32}
    assert loaded.family == made.family
    assert loaded.family.max_length == 2048
    assert (made.family.tokenizer.chat_template is None) is (name == "stand-in:gpt2")
    assert loaded.family.tokenizer.chat_template == made.family.tokenizer.chat_template


@pytest.mark.parametrize("architecture", sorted(OWN))
def test_stand_ins(architecture):
    one, two = (causal_stand_in(f"stand-in:{architecture}", TEXTS, 300) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.network.parameters(), two.network.parameters(), strict=True))
    size = len(one.family.tokenizer)
    assert (
        one.source
        == f"tiny random stand-in for {architecture}; tokenizer of {size} tokens trained on the texts at hand"
    )
    assert one.stand_in
    assert one.family.architecture == architecture
    assert size > 280
    assert one.network.config.vocab_size == size
    assert one.network.generation_config.pad_token_id == one.family.tokenizer.pad_token_id == 0
    assert one.network.generation_config.eos_token_id == one.family.tokenizer.eos_token_id == 1
    assert set(one.family.targets(pretrained=True)) <= set(one.targets())
    network = attach(one.network, LoRA(r=2), one.family.targets(pretrained=True), 0, one.name)
    adapted = {
        name.split(".lora_A")[0].rsplit(".", 1)[-1] for name, _ in network.named_parameters() if "lora_A" in name
    }
    assert adapted == set(LORA_TARGETS[architecture])


def test_targets():
    llama, qwen = causal_stand_in("stand-in:llama").family, causal_stand_in("Qwen/Qwen3-4B").family
    assert set(llama.targets(pretrained=True)) == set(qwen.targets(pretrained=False)) == SEVEN
    assert qwen.targets(pretrained=True) == ["q_proj", "k_proj", "v_proj", "o_proj"]


def test_an_architecture_without_a_list_takes_all_linear_layers_but_the_head(tmp_path):
    from transformers import OPTConfig, OPTForCausalLM

    tokenizer = causal_stand_in("stand-in:llama").family.tokenizer
    tokenizer.save_pretrained(tmp_path)
    sizes = {"hidden_size": 32, "word_embed_proj_dim": 32, "ffn_dim": 64, "num_hidden_layers": 1}
    OPTForCausalLM(OPTConfig(vocab_size=300, num_attention_heads=2, **sizes)).save_pretrained(tmp_path)
    assert set(load_causal_lm(str(tmp_path)).targets()) == {"q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"}


TEXT = 'Héllo <span class="x">漢\n\n  aspirin\t</span> &amp; <pad-> 🫀\r\n'


def test_the_stand_ins_tokenizer_is_lossless_and_the_same_in_every_process():
    tokenizer = causal_stand_in("stand-in:llama", TEXTS).family.tokenizer
    assert tokenizer.decode(tokenizer(TEXT)["input_ids"]) == TEXT
    assert (
        len(tokenizer("aspirin")["input_ids"])
        < 4
        < len(causal_stand_in("x/llama").family.tokenizer("aspirin").input_ids)
    )
    chat = [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}]
    ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True)["input_ids"]
    assert tokenizer.decode(ids) == "<|system|>\na<eos>\n<|user|>\nb<eos>\n<|assistant|>\n"
    assert tokenizer.convert_tokens_to_ids(["<pad>", "<eos>", "<|system|>", "<|user|>", "<|assistant|>"]) == [
        0,
        1,
        2,
        3,
        4,
    ]
    code = (
        "from fedlit.backbones.causal_lms import causal_stand_in; import sys\n"
        f"print(causal_stand_in('stand-in:llama', {TEXTS!r}).family.tokenizer.backend_tokenizer.to_str())"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert other.strip() == tokenizer.backend_tokenizer.to_str()
    with pytest.raises(FedlitError, match="vocabulary is 200: a byte-level tokenizer needs at least 261"):
        causal_stand_in("stand-in:llama", TEXTS, 200)


@pytest.mark.parametrize(
    ("name", "architecture"),
    [
        ("meta-llama/Llama-3.2-1B-Instruct", "llama"),
        ("deepseek-ai/DeepSeek-R1-Distill-Llama-8B", "llama"),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", "qwen2"),
        ("HuggingFaceTB/SmolLM2-135M-Instruct", "llama"),
        ("Qwen/Qwen2.5-7B-Instruct", "qwen2"),
        ("EleutherAI/pythia-70m", "gpt_neox"),
        ("stand-in:gpt_neox", "gpt_neox"),
    ],
)
def test_stand_ins_by_name(name, architecture):
    assert causal_stand_in(name).family.architecture == architecture


def test_a_folders_stand_in_has_its_architecture(tmp_path):
    saved(tmp_path, "stand-in:qwen2")
    assert causal_stand_in(str(tmp_path)).family.architecture == "qwen2"
    with pytest.raises(FedlitError, match="cannot be told from its name"):
        causal_stand_in("someone/model")
    edit(tmp_path / "config.json", model_type="opt", architectures=...)
    with pytest.raises(FedlitError, match="there is no stand-in:opt; there are gemma, "):
        causal_stand_in(str(tmp_path))


def test_weights_are_held_as_asked_and_adapters_in_float32(tmp_path):
    saved(tmp_path)
    for loaded in (load_causal_lm(str(tmp_path), held="bfloat16"), causal_stand_in("stand-in:llama", held="bfloat16")):
        assert {one.dtype for one in loaded.network.parameters()} == {torch.bfloat16}
        network = attach(loaded.network, LoRA(), loaded.targets(), 0, "x")
        assert {one.dtype for one in network.parameters() if one.requires_grad} == {torch.float32}
    with pytest.raises(FedlitError, match="held in 'float16': give"):
        load_causal_lm(str(tmp_path), held="float16")


def test_tied_heads_need_no_weights_of_their_own_and_others_do(tmp_path):
    made = causal_stand_in("stand-in:llama", TEXTS)
    made.family.save(tmp_path)
    made.network.config.tie_word_embeddings = True
    AutoModelForCausalLM.from_config(made.network.config).save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    assert "lm_head.weight" not in load_file(path)
    network = load_causal_lm(str(tmp_path)).network
    assert network.lm_head.weight is network.model.embed_tokens.weight
    edit(tmp_path / "config.json", tie_word_embeddings=False)
    with pytest.raises(FedlitError, match=r"1 of its weights are not in the file, first 'lm_head\.weight'"):
        load_causal_lm(str(tmp_path))
    edit(tmp_path / "config.json", tie_word_embeddings=True)
    key = "model.layers.1.mlp.up_proj.weight"
    save_file({name: value for name, value in load_file(path).items() if name != key}, path, {"format": "pt"})
    with pytest.raises(FedlitError, match=f"not in the file, first '{key}'"):
        load_causal_lm(str(tmp_path))


def test_a_tokenizer_without_padding_pads_with_its_end_of_text(tmp_path):
    saved(tmp_path)
    edit(tmp_path / "tokenizer_config.json", pad_token=...)
    assert AutoTokenizer.from_pretrained(tmp_path).pad_token is None
    loaded = load_causal_lm(str(tmp_path))
    tokenizer = loaded.family.tokenizer
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == loaded.network.generation_config.pad_token_id == 1
    assert len(tokenizer) == loaded.network.get_input_embeddings().weight.shape[0]
    edit(tmp_path / "tokenizer_config.json", eos_token=...)
    with pytest.raises(FedlitError, match="the tokenizer has no end-of-text token"):
        load_causal_lm(str(tmp_path))


def test_the_window_is_the_smaller_of_networks_and_tokenizers(tmp_path):
    saved(tmp_path)
    edit(tmp_path / "tokenizer_config.json", model_max_length=100)
    family = load_causal_lm(str(tmp_path)).family
    assert family.max_length == 100
    assert family.example(2)["input_ids"].shape == (2, 100)
    with pytest.raises(FedlitError, match="texts of 101 tokens are longer than this backbone's window: 100"):
        family.example(2, 101)
    edit(tmp_path / "tokenizer_config.json", model_max_length=10**30)
    assert load_causal_lm(str(tmp_path)).family.max_length == 2048


def test_folders_that_will_not_do(tmp_path):
    from transformers import BertConfig, BertModel

    with pytest.raises(FedlitError, match="no such folder"):
        load_causal_lm(str(tmp_path / "missing"))
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    bert = tmp_path / "bert"
    BertModel(BertConfig(**sizes, vocab_size=50)).save_pretrained(bert)
    with pytest.raises(FedlitError, match=r"is BertModel \(model_type bert\), no causal language model"):
        load_causal_lm(str(bert))
    edit(bert / "config.json", architectures=...)
    with pytest.raises(FedlitError, match=r"model_type bert\), no causal language model"):
        load_causal_lm(str(bert))
    edit(bert / "config.json", model_type="nothing")
    with pytest.raises(FedlitError, match="is nothing .*no causal language model"):
        load_causal_lm(str(bert))
    llama = tmp_path / "llama"
    saved(llama, architectures=["LlamaForSequenceClassification"])
    with pytest.raises(FedlitError, match="is LlamaForSequenceClassification"):
        load_causal_lm(str(llama))
    edit(llama / "config.json", architectures=["LlamaForCausalLM"], quantization_config={"quant_method": "gptq"})
    with pytest.raises(FedlitError, match=r"is quantised already \(gptq\)"):
        load_causal_lm(str(llama))
    edit(llama / "config.json", quantization_config=..., vocab_size=270)
    with pytest.raises(FedlitError, match=r"the tokenizer has \d+ tokens, the network 270"):
        load_causal_lm(str(llama))
    (llama / "tokenizer.json").write_text("{")
    with pytest.raises(FedlitError, match="no usable tokenizer"):
        load_causal_lm(str(llama))
    (llama / "tokenizer.json").unlink()
    with pytest.raises(FedlitError, match=r"none of tokenizer\.json"):
        load_causal_lm(str(llama))


def test_four_bits_without_bitsandbytes_are_an_error_and_never_full_precision(monkeypatch, tmp_path):
    saved(tmp_path)
    found = importlib.util.find_spec
    monkeypatch.setattr(
        "fedlit.backbones.causal_lms.find_spec", lambda name: None if name == "bitsandbytes" else found(name)
    )
    for name in (str(tmp_path), "stand-in:llama"):
        with pytest.raises(FedlitError, match=r"needs bitsandbytes: pip install 'fedlit\[qlora\]'"):
            load_causal_lm(name, "nf4")
    with pytest.raises(FedlitError, match="quantization 'int4': give 'nf4'"):
        load_causal_lm(str(tmp_path), "int4")


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gpt2"])
def test_checkpointing_changes_no_gradient(architecture):
    made = causal_stand_in(f"stand-in:{architecture}", TEXTS)
    network = attach(made.network, LoRA(), made.targets(), 0, made.name)
    assert can_checkpoint(network)
    tokens = made.family.tokenizer(TEXTS[:2], padding=True, return_tensors="pt")
    plain, again = (gradients(network, tokens, on) for on in (False, True))
    for name, value in plain.items():
        torch.testing.assert_close(value, again[name])
        assert value.abs().max() > 0


def test_generation_with_adapters_does_not_see_padding_on_the_left():
    made = causal_stand_in("stand-in:llama", TEXTS)
    network = attach(made.network, LoRA(), made.targets(), 0, made.name)
    tokenizer = made.family.tokenizer
    tokenizer.padding_side = "left"
    options = {"max_new_tokens": 8, "do_sample": False}
    with torch.inference_mode():
        rows = network.generate(**tokenizer(TEXTS[:2], padding=True, return_tensors="pt"), **options)[:, -8:]
        alone = [network.generate(**tokenizer([one], return_tensors="pt"), **options)[0, -8:] for one in TEXTS[:2]]
    assert torch.equal(rows, torch.stack(alone))


def test_import_is_light():
    heavy = "{'peft', 'bitsandbytes', 'chronos', 'transformers'} & set(sys.modules)"
    code = f"import sys, fedlit.backbones.causal_lms; found = {heavy}; assert not found, found"
    subprocess.run([sys.executable, "-c", code], check=True)
