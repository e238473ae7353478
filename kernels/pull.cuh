// How far the residuals of a class of n samples are taken from the centre of all classes instead of the class mean:
// wholly at one sample, hardly at many. A class of one sample shows no scatter; its distance from the centre stands in.
#pragma once

#include "simt.cuh"

DEVICE double pulled(double n, double pull) { return sqrt(pull / (n - 1 + pull)); }
