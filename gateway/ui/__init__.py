"""The dashboard: pages for people, made of static files that are served from memory. What they show comes from the
API that everybody has.
"""
