"""The ClientApp: a letterbox in front of one hospital."""

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from fedkd.federation.flower.letterbox import reply_to

app = ClientApp()


@app.query("answer")
def answer(message: Message, context: Context) -> Message:
    """Passes canonical bytes to the site and its bytes back: an answer, or a refusal."""
    return reply_to(message, context)
