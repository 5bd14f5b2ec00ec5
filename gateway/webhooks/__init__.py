"""Webhooks as people manage them: addresses, shapes, the delivery log. Sending them is processors.webhooks."""
