"""What the chat tells of its own commands."""

from __future__ import annotations

from typing import Final

HELP: Final = """\
Available Commands:
  /set            Set session variables
  /show           Show model information
  /load MODEL     Talk to another model
  /save NAME      Keep this conversation as a model
  /list           Show the installed models
  /clear          Forget what was said
  /bye            Leave
  /?, /help       Help for a command
  /? shortcuts    Help for keyboard shortcuts

Use \"\"\" to begin a multi-line message, and \"\"\" to end it.
"""
IMAGES: Final = "Use /path/to/file to include .jpg, .png, or .webp images.\n"
SET: Final = """\
Available Commands:
  /set parameter ...       Set a parameter
  /set system TEXT         Set the system message
  /set history             Keep what you type for later sessions
  /set nohistory           Do not
  /set wordwrap            Break lines between words
  /set nowordwrap          Do not
  /set format json         Answer in JSON
  /set format FILE         Answer by the JSON schema in that file
  /set noformat            Answer as it likes
  /set verbose             Show timings
  /set quiet               Do not
  /set think [LEVEL]       Let it think first
  /set nothink             Do not
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
  Ctrl + k            Delete what is after the cursor
  Ctrl + u            Delete what is before the cursor
  Ctrl + w            Delete the word before the cursor
  Ctrl + r            Search what was typed before
  Ctrl + g            Go on in the editor of $EDITOR

  Ctrl + l            Clear the screen
  Ctrl + c            Stop the model from responding
  Ctrl + d            Leave (/bye)
"""
