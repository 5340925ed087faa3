"""Every error that Medley raises on purpose.

MedleyError
├── ConfigError          a setting that is unknown, of the wrong type or out of range
├── DataError            input that cannot be used
│   ├── SourceError        a file that is missing, empty, cut short, corrupt or too large a line
│   ├── SchemaError        a column that is missing, misspelt or of the wrong type
│   └── RequestError       a request that names what is not there, or asks for what cannot be
├── ModelError           parameters or a model that do not fit, are not finite, or break the protocol
├── StateError           durable state that cannot be read or written
│   ├── RegistryError      an artifact or version that is missing, half written or too new
│   ├── DatabaseError      a database that cannot be reached, or a row that is not there
│   └── JournalError       a journal that cannot make an event durable
├── ClusterError         Ray, a port or a process that is not as it must be
│   └── JobError           a job that could not be submitted, followed or stopped
└── EvidenceError        too little support for the estimate that was asked for

Every message says what was found, what was expected, and what to do. All arguments go to
`super().__init__`, so that an error survives pickling between processes.
"""


class MedleyError(Exception):
    """Base of the tree; `str(error)` is one message fit for a person."""


class ConfigError(MedleyError):
    pass


class DataError(MedleyError):
    pass


class SourceError(DataError):
    pass


class SchemaError(DataError):
    pass


class RequestError(DataError):
    """`loc` is the path of the field in the request's body, `status` the HTTP status that says it best."""

    def __init__(self, loc: tuple[str | int, ...], message: str, status: int = 422) -> None:
        super().__init__(loc, message, status)
        self.loc, self.message, self.status = loc, message, status

    def __str__(self) -> str:
        return f"{'.'.join(str(part) for part in self.loc)}: {self.message}"


class ModelError(MedleyError):
    pass


class StateError(MedleyError):
    pass


class RegistryError(StateError):
    pass


class DatabaseError(StateError):
    pass


class JournalError(StateError):
    pass


class ClusterError(MedleyError):
    pass


class JobError(ClusterError):
    pass


class EvidenceError(MedleyError):
    pass
