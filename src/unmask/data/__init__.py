"""Text and chats in, token batches out: sources, tokenizer, chat, packing. Knows no model and no noise."""
