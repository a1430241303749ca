"""Conversations: what a chat template accepts, and where a conversation may be cut."""
