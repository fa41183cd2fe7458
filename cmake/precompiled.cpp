// SPDX-License-Identifier: Apache-2.0
// Nothing: a target that owns a precompiled header needs a source (cowire_precompiled.cmake).
