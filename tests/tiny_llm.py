"""A language model of a few thousand random weights with a tokenizer of its own, as a folder; nothing is fetched."""

from pathlib import Path

WORDS = """the a of to and is in it you that he was for on are with as his they be at one have this from or had by hot
but what some we can out other were all there when up use your how said an each she which do their time if will way
about many then them would like so these her long make thing see him two has look more day could go come did my sound
no most number who over know water than call first people may down side been now find"""
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make_tiny_llm(
    folder: Path,
    *,
    kind: str = "Llama",
    seed: int = 0,
    tied: bool = True,
    layers: int = 3,
    width: int = 32,
    context: int = 256,
) -> Path:
    """Write a Llama (or a Phi3, or a GPT2) of 2 attention heads (and one for keys) to `folder`, with a byte-level BPE
    tokenizer and a chat template in the manner of SmolLM2. Returns `folder`."""
    import torch
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import GenerationConfig, PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    core.train_from_iterator(
        [WORDS] * 3,
        trainers.BpeTrainer(
            vocab_size=420,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        unk_token="<|endoftext|>",
        model_max_length=context,
    )
    tokenizer.chat_template = TEMPLATE
    common = dict(
        vocab_size=len(tokenizer),
        tie_word_embeddings=tied,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
        initializer_range=0.2,
    )
    if kind == "GPT2":
        sizes = dict(n_embd=width, n_layer=layers, n_head=2, n_positions=context, n_inner=2 * width)
    else:
        sizes = dict(
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=layers,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=context,
        )
    config = getattr(transformers, f"{kind}Config")(**common, **sizes)
    network = getattr(transformers, "GPT2LMHeadModel" if kind == "GPT2" else f"{kind}ForCausalLM")
    state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    model = network(config)
    torch.random.set_rng_state(state)
    model.generation_config = GenerationConfig(bos_token_id=1, eos_token_id=2, pad_token_id=2)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Path(folder)
