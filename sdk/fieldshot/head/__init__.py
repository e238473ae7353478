"""The head: turns embeddings into labels, fine-tuned in closed form from whatever samples there are."""

from fieldshot.head.fewshot import FewShotHead

__all__ = ["FewShotHead"]
