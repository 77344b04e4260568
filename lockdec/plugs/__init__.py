"""Plugs: what one encoder needs to speak through one decoder, in a folder of a few hundred kilobytes.

record   what the folder says of itself
writing  writes the folder
folder   reads it, and refuses what does not belong together
card     its model card
hub      to and from the Hugging Face hub
"""
