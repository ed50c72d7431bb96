from django import forms
from django.core.exceptions import ValidationError

from testproject.chat.models import Message


class MessageForm(forms.ModelForm):
    """What a client may send: some text, stripped, and no longer than the model's field."""

    class Meta:
        model = Message
        fields = ("text",)

    def clean_text(self):
        text = self.cleaned_data["text"]
        try:
            text.encode()  # JSON can spell half a surrogate pair, which no database can store.
        except UnicodeEncodeError as error:
            raise ValidationError("This is not text.", code="invalid") from error
        return text
