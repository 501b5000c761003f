"""What does a program need to write a service of plain functions: the application, its retries and its records.

`from tidelog.app import App, Retry`; `tidelog.App` is the same.
"""

from tidelog.app.application import App
from tidelog.app.channels import AppChannel, ChannelSpec
from tidelog.app.handler import Handler
from tidelog.app.hooks import Failure
from tidelog.app.retry import Retry

__all__ = ["App", "AppChannel", "ChannelSpec", "Failure", "Handler", "Retry"]
