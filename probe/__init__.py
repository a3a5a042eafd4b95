"""The platform-effect probe: who wrote this refusal, the model or the platform?"""

__version__ = "0.1.0"
