"""A BERT encoder with a head for whole sentences, under the names that its published weights have.

Without dropout: what is compared are directions of a step, and a run then follows from its order of examples alone.
"""

import torch
from torch import nn
from torch.nn import functional

HEADS = 12
EPSILON = 1e-12
# Added to the scores of positions that are padding.
MASKED = -1e4


class Embeddings(nn.Module):
    def __init__(self, words, positions, types, width):
        super().__init__()
        self.word_embeddings = nn.Embedding(words, width)
        self.position_embeddings = nn.Embedding(positions, width)
        self.token_type_embeddings = nn.Embedding(types, width)
        self.LayerNorm = nn.LayerNorm(width, eps=EPSILON)

    def forward(self, tokens, types):
        positions = self.position_embeddings.weight[: tokens.shape[1]]
        return self.LayerNorm(self.word_embeddings(tokens) + self.token_type_embeddings(types) + positions)


class Output(nn.Module):
    """A linear layer whose result is added to what its block began with."""

    def __init__(self, inputs, width):
        super().__init__()
        self.dense = nn.Linear(inputs, width)
        self.LayerNorm = nn.LayerNorm(width, eps=EPSILON)

    def forward(self, hidden, before):
        return self.LayerNorm(self.dense(hidden) + before)


class Layer(nn.Module):
    def __init__(self, width, inner):
        super().__init__()
        projections = {name: nn.Linear(width, width) for name in ("query", "key", "value")}
        self.attention = nn.ModuleDict({"self": nn.ModuleDict(projections), "output": Output(width, width)})
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(width, inner)})
        self.output = Output(inner, width)

    def forward(self, hidden, mask):
        attended = self.attention["output"](self.attend(hidden, mask), hidden)
        return self.output(functional.gelu(self.intermediate["dense"](attended)), attended)

    def attend(self, hidden, mask):
        length, width = hidden.shape[1:]

        def heads(name):
            projected = self.attention["self"][name](hidden)
            return projected.view(-1, length, HEADS, width // HEADS).transpose(1, 2)

        scores = heads("query") @ heads("key").transpose(2, 3) / (width // HEADS) ** 0.5
        weights = torch.softmax(scores + mask, dim=-1)
        return (weights @ heads("value")).transpose(1, 2).reshape(-1, length, width)


class SentenceModel(nn.Module):
    """The encoder, the mean over the tokens, and a linear head with so many outputs."""

    def __init__(self, weights, outputs):
        super().__init__()
        words, width = weights["embeddings.word_embeddings.weight"].shape
        positions = len(weights["embeddings.position_embeddings.weight"])
        types = len(weights["embeddings.token_type_embeddings.weight"])
        inner = len(weights["encoder.layer.0.intermediate.dense.weight"])
        layers = 1 + max(int(name.split(".")[2]) for name in weights if name.startswith("encoder.layer."))
        self.embeddings = Embeddings(words, positions, types, width)
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(Layer(width, inner) for _ in range(layers))})
        # The head's weights are all that is not loaded: the pooler of BERT's pretraining is not part of this model.
        loaded = {name: weight for name, weight in weights.items() if name in self.state_dict()}
        self.load_state_dict(loaded)
        self.head = nn.Linear(width, outputs)

    def forward(self, input_ids, attention_mask, token_type_ids):
        return self.head(self.embed(input_ids, attention_mask, token_type_ids))

    def embed(self, input_ids, attention_mask, token_type_ids):
        """A sentence as the mean of its tokens."""
        kept = attention_mask.to(self.embeddings.LayerNorm.weight.dtype)
        hidden = self.embeddings(input_ids, token_type_ids)
        for layer in self.encoder["layer"]:
            hidden = layer(hidden, (1 - kept[:, None, None, :]) * MASKED)
        return (hidden * kept[:, :, None]).sum(1) / kept.sum(1, keepdim=True)
