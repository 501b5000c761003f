"""Are API descriptions what AsyncAPI's own tools take for right?"""
