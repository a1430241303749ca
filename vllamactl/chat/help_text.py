"""The help texts of the chat."""

from __future__ import annotations

from typing import Final

HELP: Final = """\
Available Commands:
  /set            Set session variables
  /show           Show model information
  /load MODEL     Switch to another model
  /save NAME      Save this conversation as a model
  /list           List the installed models
  /clear          Clear the conversation
  /bye            Exit
  /?, /help       Help for a command
  /? shortcuts    Help for keyboard shortcuts

Use \"\"\" to begin a multi-line message, and \"\"\" to end it.
"""
IMAGES: Final = "Use /path/to/file to include .jpg, .png, or .webp images.\n"
SET: Final = """\
Available Commands:
  /set parameter ...       Set a parameter
  /set system TEXT         Set the system message
  /set history             Save the input history
  /set nohistory           Do not save the input history
  /set wordwrap            Wrap lines between words
  /set nowordwrap          Do not wrap lines
  /set format json         Reply in JSON
  /set format FILE         Reply by the JSON schema in a file
  /set noformat            Reply without a format
  /set verbose             Show timings
  /set quiet               Do not show timings
  /set think [LEVEL]       Enable thinking
  /set nothink             Disable thinking
"""
SHOW: Final = """\
Available Commands:
  /show info         Show details for this model
  /show license      Show model license
  /show modelfile    Show Modelfile for this model
  /show parameters   Show parameters for this model
  /show system       Show system message
  /show template     Show prompt template
"""
PARAMETERS: Final = """\
Available Parameters:
  /set parameter seed <int>             Random number seed
  /set parameter num_predict <int>      Max number of tokens to predict
  /set parameter top_k <int>            Pick from top k num of tokens
  /set parameter top_p <float>          Pick token based on sum of probabilities
  /set parameter min_p <float>          Pick token based on top token probability * min_p
  /set parameter temperature <float>    Set creativity level
  /set parameter repeat_penalty <float> How strongly to penalize repetitions
  /set parameter stop <string> ...      Set the stop parameters
"""
SHORTCUTS: Final = """\
Available keyboard shortcuts:
  Ctrl + a            Move to the beginning of the line (Home)
  Ctrl + e            Move to the end of the line (End)
   Alt + b            Move back (left) one word
   Alt + f            Move forward (right) one word
  Ctrl + k            Delete from the cursor to the end of the line
  Ctrl + u            Delete from the start of the line to the cursor
  Ctrl + w            Delete the word before the cursor
  Ctrl + r            Search the history
  Ctrl + g            Edit the message in $EDITOR

  Ctrl + l            Clear the screen
  Ctrl + c            Stop the model from responding
  Ctrl + d            Exit (/bye)
"""
