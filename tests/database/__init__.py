"""Do the recipes of docs/howto/own-database.md and outbox.md hold when their programs are killed?"""
