"""Conclusions from the records: is the winner better, what mattered, what did it cost?"""
