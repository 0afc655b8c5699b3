"""Array types, named once. Docstrings give the shapes and units."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Bool = npt.NDArray[np.bool_]
Float16 = npt.NDArray[np.float16]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
Int32 = npt.NDArray[np.int32]
UInt32 = npt.NDArray[np.uint32]
UInt16 = npt.NDArray[np.uint16]
Int8 = npt.NDArray[np.int8]
Bytes = npt.NDArray[np.uint8]
#: Words of residues, by their numbers.
Words = npt.NDArray[np.uint16]
