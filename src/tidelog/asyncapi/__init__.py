"""What do other teams need to know to talk to an application: the package of API descriptions.

`document` makes the AsyncAPI description, `page` shows it to people, `changes` compares two, `text` writes and reads.
"""
