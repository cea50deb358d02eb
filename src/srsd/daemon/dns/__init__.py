"""The DNS client: a stub that asks recursive name servers, and keeps what they answer."""
